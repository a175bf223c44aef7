"""What a log tells of an error: where and of what kind, never what it said."""

import asyncio
import json

import pytest

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.telemetry.tracebacks import told

MARKER = "my-secret-prompt"


def _fail(error: BaseException, cause: BaseException | None = None) -> str:
    try:
        try:
            if cause is not None:
                raise cause
        finally:
            raise error
    except BaseException as caught:
        return told(caught)


class OddError(Exception):
    def __str__(self) -> str:
        raise ValueError(MARKER)


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (ValueError(MARKER), "ValueError"),
        (KeyError(MARKER), "KeyError"),
        (UnicodeDecodeError("utf-8", MARKER.encode(), 0, 1, MARKER), "UnicodeDecodeError"),
        (FileNotFoundError(2, "No such file", f"/home/{MARKER}"), "FileNotFoundError: errno 2"),
        (OSError(MARKER), "OSError"),
        (TokenwireError(Code.NOT_FOUND, "RUN_NOT_FOUND", MARKER), "TokenwireError: NOT_FOUND RUN_NOT_FOUND"),
        (OddError(), "OddError"),
        (asyncio.CancelledError(MARKER), "CancelledError"),
    ],
)
def test_an_error_is_told_by_kind_and_place(error: BaseException, last: str) -> None:
    text = _fail(error)
    assert text.splitlines()[-1] == last
    assert "telemetry/test_logs.py:" in text
    assert "in _fail" in text
    # Neither what it said, nor lines of code, nor folders of this machine.
    assert MARKER not in text
    assert "raise error" not in text
    assert __file__ not in text


def test_causes_and_groups_are_told_too_and_endless_ones_end() -> None:
    text = _fail(KeyError(MARKER), ValueError(MARKER))
    assert [line for line in text.splitlines() if "test_logs" not in line] == [
        "ValueError",
        "which led to:",
        "KeyError",
    ]
    group = ExceptionGroup(MARKER, [ValueError(MARKER), ExceptionGroup(MARKER, [KeyError(MARKER)])])
    text = _fail(group)
    assert "  ValueError\n  ExceptionGroup\n    KeyError" in text
    assert MARKER not in text
    one: BaseException = ValueError(MARKER)
    for _ in range(50):
        one.__cause__ = KeyError(MARKER)
        one = one.__cause__
    assert _fail(one).count("KeyError") < 20
    looped = ValueError()
    looped.__cause__ = looped
    assert "..." in told(looped)


def test_files_are_told_from_their_package_on() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        text = told(error)
    assert "\n  json/decoder.py:" in text
