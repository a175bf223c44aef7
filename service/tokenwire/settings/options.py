"""What the command line and the documents need to know of each setting."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tokenwire.settings.model import Settings
from tokenwire.settings.names import CONFIG, DEFAULT_FILE, flag_name, variable_name
from tokenwire.settings.rows import shown
from tokenwire.settings.wording import Wording


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingOption:
    """One setting as an option of the command line.

    Args:
        name: its key in the flags of `Settings.load`, and in the TOML file.
        value_type: str, int, float, bool, Path, or list[str] for a flag that repeats.
        default: as text for people; the flag's own default is None, so that other sources can speak.
        choices: the values that are known, if they are few.
    """

    name: str
    flag: str
    variable: str
    value_type: Any
    default: str
    description: str
    choices: tuple[str, ...] = ()


def options() -> Iterator[SettingOption]:
    """Yields the config file's option, then one for each setting, in the order of the model."""
    yield SettingOption(
        name=CONFIG,
        flag=flag_name(CONFIG),
        variable=variable_name(CONFIG),
        value_type=Path,
        default=f"./{DEFAULT_FILE} if it exists",
        description="The TOML file to read.",
    )
    for name, info in Settings.model_fields.items():
        choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        yield SettingOption(
            name=name,
            flag=flag_name(name),
            variable=variable_name(name),
            value_type=_value_type(name, info, choices),
            default=_default(info),
            description=info.description or "",
            choices=choices,
        )


def _value_type(name: str, info: FieldInfo, choices: tuple[str, ...]) -> Any:
    if name == "engines":
        return list[str]
    return str if choices or info.annotation is SecretStr else info.annotation


def _default(info: FieldInfo) -> str:
    for item in info.metadata:
        if isinstance(item, Wording) and item.default:
            return item.default
    return shown(info.default)
