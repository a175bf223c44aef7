"""One frozen Settings object: the only reader of the environment in the package."""

from tokenwire.settings.address import is_loopback, split_listen
from tokenwire.settings.engine import EngineKind, EngineSettings
from tokenwire.settings.environment import environment
from tokenwire.settings.kinds import Transport
from tokenwire.settings.model import Settings
from tokenwire.settings.options import SettingOption, options
from tokenwire.settings.problems import SettingsError
from tokenwire.settings.rows import SettingRow

__all__ = [
    "EngineKind",
    "EngineSettings",
    "SettingOption",
    "SettingRow",
    "Settings",
    "SettingsError",
    "Transport",
    "environment",
    "is_loopback",
    "options",
    "split_listen",
]
