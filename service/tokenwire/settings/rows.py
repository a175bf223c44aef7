"""Settings as they are shown to people."""

from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from tokenwire.settings.engine import EngineSettings

HIDDEN = "********"


class SettingRow(NamedTuple):
    """One line of `tokenwire config show`."""

    name: str
    value: str
    source: str


def shown(value: object) -> str:
    """Returns a value as text, without secrets."""
    match value:
        case EngineSettings():
            return _engine(value)
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case Path():
            return str(value)
        case tuple():
            return "; ".join(map(shown, value))
        case SecretStr():
            return HIDDEN if value.get_secret_value() else '""'
        case "":
            return '""'
        case _:
            return str(value)


def _engine(engine: EngineSettings) -> str:
    facts = [f"{engine.kind} {engine.url}".rstrip()]
    if engine.model:
        facts.append(f"model {engine.model}")
    if engine.alias:
        facts.append(f"alias {engine.alias}")
    if engine.api_key.get_secret_value():
        facts.append(f"api_key {HIDDEN}")
    if engine.timeout_seconds is not None:
        facts.append(f"timeout_seconds {shown(engine.timeout_seconds)}")
    return ", ".join(facts)
