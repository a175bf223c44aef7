"""Tool calls out of an answer's text, as it is written.

A call is a JSON object between two tags, which is how many models were taught to write one:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>
"""

import re
from dataclasses import dataclass
from enum import Enum

import msgspec

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
# A call's name comes within so many characters, or it is none.
_HEAD_MAX = 1024


@dataclass(frozen=True, slots=True)
class Said:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins; calls are numbered from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """Text of a call's arguments."""

    index: int
    text: str


Part = Said | Called | Argued


class CallParser:
    """Reads one answer, in any cuts.

    What stands between the tags but is no call remains the answer's text. White space after a call is left out.

    Args:
        expected: whether the answer is calls alone.

    Attributes:
        begun: how many calls have begun.
        ended: how many calls came to the end of their arguments.
    """

    def __init__(self, *, expected: bool = False) -> None:
        self._expected = expected
        self.begun = 0
        self.ended = 0
        self._state = _State.TEXT
        self._buffer = ""
        self._depth = 0
        self._in_string = False
        self._skip = 0

    @property
    def holding(self) -> bool:
        """Whether text is held back that may turn out to be a tag, or the head of a call."""
        return self._state is _State.HEAD or (self._state is _State.TEXT and bool(self._buffer))

    @property
    def calling(self) -> bool:
        """Whether the last text that was read belongs to a call."""
        return self._state in (_State.ARGUMENTS, _State.TAIL, _State.AFTER)

    def feed(self, text: str) -> list[Part]:
        """Returns what is certain with this text."""
        parts: list[Part] = []
        self._buffer += text
        while self._buffer:
            state, length = self._state, len(self._buffer)
            self._step(parts)
            if self._state is state and len(self._buffer) == length:
                break
        return parts

    def finish(self) -> list[Part]:
        """Returns the text that was held back when the answer ends. The beginning of a call is none."""
        text, self._buffer = self._buffer, ""
        part_of_call = self._state is not _State.TEXT or self._expected or self.begun
        return [] if part_of_call or not text else [Said(text)]

    def _step(self, parts: list[Part]) -> None:
        match self._state:
            case _State.TEXT:
                self._text(parts)
            case _State.HEAD:
                self._head(parts)
            case _State.ARGUMENTS:
                self._arguments(parts)
            case _State.TAIL:
                self._tail()
            case _State.AFTER:
                self._after()

    def _text(self, parts: list[Part]) -> None:
        before, tag, after = self._buffer.partition(OPEN)
        if tag:
            self._state, self._buffer = _State.HEAD, after
        else:
            keep = begun(self._buffer, OPEN)
            before, self._buffer = self._buffer[: len(self._buffer) - keep], self._buffer[len(self._buffer) - keep :]
        if before:
            parts.append(Said(before))

    def _head(self, parts: list[Part]) -> None:
        match = _HEAD.match(self._buffer)
        if match is not None and (name := _name(match[1])):
            parts.append(Called(self.begun, name))
            self.begun += 1
            self._buffer = self._buffer[match.end() :]
            self._state = _State.ARGUMENTS
        elif match is not None or CLOSE in self._buffer or len(self._buffer) > _HEAD_MAX:
            # None that could be called: nobody is to miss what the model wrote.
            self._state = _State.TEXT
            parts.append(Said(OPEN))

    def _arguments(self, parts: list[Part]) -> None:
        end = self._end_of_arguments()
        parts.append(Argued(self.begun - 1, self._buffer[:end]))
        self._buffer = self._buffer[end:]

    def _end_of_arguments(self) -> int:
        """Returns how much of the buffer belongs to the arguments; at their end the state is TAIL."""
        position, self._skip = self._skip, 0
        while mark := _MARK.search(self._buffer, position):
            position = mark.end()
            if mark[0] == '"':
                self._in_string = not self._in_string
            elif mark[0] == "\\":
                # What follows is no mark, and may come with the next text.
                position += 1
                self._skip = max(0, position - len(self._buffer))
            elif self._in_string:
                continue
            elif mark[0] in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    self.ended += 1
                    self._state = _State.TAIL
                    return position
        return len(self._buffer)

    def _tail(self) -> None:
        _, tag, after = self._buffer.partition(CLOSE)
        if tag:
            self._state, self._buffer = _State.AFTER, after
        else:
            self._buffer = self._buffer[len(self._buffer) - begun(self._buffer, CLOSE) :]

    def _after(self) -> None:
        self._buffer = self._buffer.lstrip()
        if self._buffer:
            self._state = _State.TEXT


def begun(text: str, tag: str) -> int:
    """Returns how many characters at the end of `text` may be the beginning of `tag`."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)


# Bounded, so that a head is found in any cuts or in none. Arguments are an object.
_HEAD = re.compile(
    r'\s{0,64}\{\s{0,64}"name"\s{0,64}:\s{0,64}("(?:[^"\\]|\\.){1,512}")\s{0,64}'
    r',\s{0,64}"arguments"\s{0,64}:\s{0,64}(?=\{)'
)
_MARK = re.compile(r'["\\{}\[\]]')


class _State(Enum):
    """What is being read: the answer's text; a call up to its name, its arguments, what closes it; white space."""

    TEXT = 0
    HEAD = 1
    ARGUMENTS = 2
    TAIL = 3
    AFTER = 4


def _name(text: str) -> str:
    """Returns what a JSON string says, or nothing."""
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return ""
