"""Text from elsewhere, made safe for a terminal."""

import re
import sys
from enum import Enum, auto

_ESCAPE = "\x1b"
# The names of https://ecma-international.org/publications-and-standards/standards/ecma-48/.
_CSI, _BELL, _C1_CSI, _C1_ST = "[", "\x07", "\x9b", "\x9c"
_STRINGS = "]PX^_"
_C1_STRINGS = "\x9d\x90\x98\x9e\x9f"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()
    CSI = auto()
    STRING = auto()
    STRING_ESCAPE = auto()


class Plain:
    """Takes control codes and escape sequences out of a text that comes in pieces; newline and tab stay."""

    def __init__(self) -> None:
        self._state = _State.TEXT

    def feed(self, text: str) -> str:
        """Returns what may be shown of the next piece."""
        if self._state is _State.TEXT and not _CONTROL.search(text):
            return text
        return "".join(character for character in text if self._shown(character))

    def _shown(self, character: str) -> bool:
        # A line break ends everything, so that a sequence without an end cannot hide the rest of an answer.
        if character == "\n":
            self._state = _State.TEXT
            return True
        match self._state:
            case _State.TEXT:
                self._state = _opened(character)
                return self._state is _State.TEXT and not _CONTROL.match(character)
            case _State.ESCAPE | _State.CSI if not " " <= character <= "~":
                # No part of a sequence: it was cut off, and text goes on.
                self._state = _State.TEXT
                return self._shown(character)
            case _State.ESCAPE:
                self._state = _after_escape(character)
            case _State.CSI:
                if character >= "@":
                    self._state = _State.TEXT
            case _State.STRING:
                if character in (_BELL, _C1_ST):
                    self._state = _State.TEXT
                elif character == _ESCAPE:
                    self._state = _State.STRING_ESCAPE
            case _State.STRING_ESCAPE:
                self._state = _State.TEXT if character == "\\" else _State.STRING
        return False


def plain(text: str) -> str:
    """Returns a whole text as it may be shown."""
    return Plain().feed(text)


def on_terminal() -> bool:
    """Tells whether somebody looks at standard output."""
    return sys.stdout.isatty()


def _opened(character: str) -> _State:
    if character == _ESCAPE:
        return _State.ESCAPE
    if character == _C1_CSI:
        return _State.CSI
    return _State.STRING if character in _C1_STRINGS else _State.TEXT


def _after_escape(character: str) -> _State:
    if character == _CSI:
        return _State.CSI
    if character in _STRINGS:
        return _State.STRING
    # Intermediate bytes go on; anything else is the last byte.
    return _State.ESCAPE if character <= "/" else _State.TEXT
