"""The kinds of value that settings have, each with its check."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tokenwire.settings.address import checked_url, split_listen
from tokenwire.settings.engine import SECONDS_MAX, URL_WANTED, EngineSettings
from tokenwire.settings.wording import Wording, told

_LATER_JOURNALS = ("file", "redis")


def _listen(address: str) -> str:
    split_listen(address)
    return address


def _url(url: str) -> str:
    return checked_url(url) if url else ""


def _home(path: str | Path) -> Path:
    if "\0" in str(path):
        raise ValueError("not a path")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError("nobody has this home") from error


def _file(path: str) -> str:
    return str(_home(path)) if path else ""


def _folder(path: object) -> object:
    if path == "":
        raise ValueError("not a folder")
    return _home(path) if isinstance(path, str | Path) else path


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _journal(name: object) -> object:
    if name in _LATER_JOURNALS:
        raise told(f'knows only memory as yet; the journal "{name}" comes with a later release')
    return name


def _engines(items: object) -> object:
    # JSON and TOML know lists only.
    return tuple(items) if isinstance(items, list) else items


Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=SECONDS_MAX, allow_inf_nan=False)]
ListenAddress = Annotated[
    str, AfterValidator(_listen), Wording(wanted="host:port or [::1]:port, with a port of at most 65535")
]
Url = Annotated[str, AfterValidator(_url), Wording(wanted=URL_WANTED)]
FilePath = Annotated[str, AfterValidator(_file), Wording(wanted="the path of a file")]
FolderPath = Annotated[Path, BeforeValidator(_folder), Wording(wanted="the path of a folder")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)]
JournalKind = Annotated[Literal["memory"], BeforeValidator(_journal)]
Engines = Annotated[
    tuple[EngineSettings, ...],
    BeforeValidator(_engines),
    Field(min_length=1),
    Wording(wanted="at least one engine: --engine flags, a JSON list in the variable, or [[engines]] tables in a file"),
]
