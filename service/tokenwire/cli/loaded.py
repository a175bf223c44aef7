"""The settings of this process, or the end of the command."""

from collections.abc import Mapping
from pathlib import Path

from tokenwire.cli.failure import USAGE, CommandError
from tokenwire.settings import Settings, SettingsError, environment


def load(flags: Mapping[str, object]) -> Settings:
    """Returns the settings from flags, environment and file. Raises CommandError with every problem."""
    try:
        return Settings.load(flags, environment(), Path.cwd())
    except SettingsError as error:
        raise CommandError(str(error), exit_code=USAGE) from None
