"""The kinds of value that settings have, each with its check."""

import base64
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from tokenwire.settings.address import checked_url, split_listen
from tokenwire.settings.engine import SECONDS_MAX, URL_WANTED, EngineSettings
from tokenwire.settings.wording import Wording, told

_JOURNAL_SCHEMES = ("redis", "rediss", "unix")
JOURNAL_WANTED = "memory, file:FOLDER, or redis://HOST:PORT (rediss:// with TLS, unix:///SOCKET)"


# For AES-256.
KEY_BYTES = 32


def _listen(address: str) -> str:
    split_listen(address)
    return address


def _optional_listen(address: str) -> str:
    return _listen(address) if address else ""


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


def _journal(text: str) -> str:
    kind, colon, rest = text.partition(":")
    if text == "memory":
        return text
    if kind == "file" and rest:
        return f"file:{_home(rest)}"
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise told("wants no name and no password in the address: redis_username and redis_password have them")
    place = parts.path if kind == "unix" else parts.hostname
    if kind not in _JOURNAL_SCHEMES or not colon or not place or parts.query or parts.fragment:
        raise ValueError("no journal")
    return text


def _key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if text:
        try:
            known = len(base64.b64decode(text, validate=True)) == KEY_BYTES
        except ValueError:
            known = False
        if not known:
            raise ValueError("no key")
    return key


def _metrics_exporter(text: str) -> str:
    names = sorted({name.strip().lower() for name in text.split(",")})
    if names not in ([one] for one in ("auto", "none", "otlp", "prometheus")) and names != ["otlp", "prometheus"]:
        raise ValueError("no exporter")
    return ",".join(names)


def _engines(items: object) -> object:
    # JSON and TOML know lists only.
    return tuple(items) if isinstance(items, list) else items


Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=SECONDS_MAX, allow_inf_nan=False)]
ListenAddress = Annotated[
    str, AfterValidator(_listen), Wording(wanted="host:port or [::1]:port, with a port of at most 65535")
]
OptionalListenAddress = Annotated[
    str, AfterValidator(_optional_listen), Wording(wanted="host:port or [::1]:port, with a port of at most 65535")
]
Url = Annotated[str, AfterValidator(_url), Wording(wanted=URL_WANTED)]
FilePath = Annotated[str, AfterValidator(_file), Wording(wanted="the path of a file")]
FolderPath = Annotated[Path, BeforeValidator(_folder), Wording(wanted="the path of a folder")]
Transport = Annotated[Literal["http2", "grpc_aio"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)]
OtlpProtocol = Annotated[Literal["http/protobuf", "grpc"], BeforeValidator(_lower)]
SignalProtocol = Annotated[Literal["same", "http/protobuf", "grpc"], BeforeValidator(_lower)]
TracesExporter = Annotated[Literal["auto", "otlp", "none"], BeforeValidator(_lower)]
MetricsExporter = Annotated[
    str, AfterValidator(_metrics_exporter), Wording(wanted="auto, none, otlp, prometheus, or otlp,prometheus")
]
JournalPlace = Annotated[str, AfterValidator(_journal), Wording(wanted=JOURNAL_WANTED)]
JournalSync = Annotated[Literal["never", "interval", "always"], BeforeValidator(_lower)]
JournalOutage = Annotated[Literal["continue", "fail"], BeforeValidator(_lower)]
Failover = Annotated[Literal["none", "before_first_token", "continue"], BeforeValidator(_lower)]
# A password or a key: never shown.
Password = Annotated[SecretStr, Wording(wanted="text")]
Key = Annotated[SecretStr, AfterValidator(_key), Wording(wanted="32 bytes in Base64")]
Engines = Annotated[
    tuple[EngineSettings, ...],
    BeforeValidator(_engines),
    Field(min_length=1),
    Wording(wanted="at least one engine: --engine flags, a JSON list in the variable, or [[engines]] tables in a file"),
]
