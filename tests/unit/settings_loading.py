"""Loads settings for tests."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tokenwire.settings import Settings, SettingsError

SECRET = "sk-do-not-tell"
SECONDS = "a number of seconds above 0 and of at most 2592000"
ADDRESS = "an http:// or https:// address without user name, query or fragment"

# It holds no tokenwire.toml.
CWD = Path(__file__).parent


def load(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, cwd: Path = CWD
) -> Settings:
    """Loads the settings of these sources alone."""
    return Settings.load(flags or {}, environ or {}, cwd)


def problems(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, cwd: Path = CWD
) -> list[str]:
    """Returns what is wrong with the settings of these sources."""
    with pytest.raises(SettingsError) as caught:
        load(flags, environ, cwd)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def written(folder: Path, text: str) -> Path:
    """Writes tokenwire.toml into the folder and returns that."""
    (folder / "tokenwire.toml").write_text(text, encoding="utf-8")
    return folder
