"""What is said to the store's server and what it answers, as bytes: version 2 of its protocol."""

from typing import Any

Word = str | bytes | float
Command = tuple[Word, ...]

_KINDS = b"+-:$*"
_STATUS, _ERROR, _INTEGER, _BYTES, _LIST = _KINDS


class RefusalError(Exception):
    """The server's answer to a command that it did not do."""


def packed(command: Command) -> bytes:
    """Returns a command as bytes."""
    return beginning(len(command)) + words(*command)


def beginning(count: int) -> bytes:
    """Returns what stands before a command of so many words."""
    return b"*%d\r\n" % count


def words(*values: Word) -> bytes:
    """Returns words of a command as bytes."""
    parts = []
    for value in values:
        data = value if type(value) is bytes else str(value).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Answers:
    """Reads answers from what comes over a connection, however that is cut.

    An answer is a number, bytes, None, a list of answers, or a RefusalError.
    """

    __slots__ = ("_needed", "_open", "_rest")

    def __init__(self) -> None:
        # What is not read yet, and how much of it there must be before reading on is worth it.
        self._rest = bytearray()
        self._needed = 0
        # Lists that have begun, the outermost first, and their lengths.
        self._open: list[tuple[list[Any], int]] = []

    def feed(self, data: bytes) -> list[Any]:
        """Returns the answers that are whole now. Raises ValueError if this is no answer of the protocol."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
        answers: list[Any] = []
        at, self._needed = 0, 0
        while (end := data.find(b"\r\n", at)) >= 0:
            kind, line, after = data[at], data[at + 1 : end], end + 2
            value: Any
            if kind == _INTEGER:
                value = int(line)
            elif kind == _BYTES:
                value, after = _bytes(data, after, int(line))
                if after > len(data):
                    self._needed = after - at
                    break
            elif kind == _LIST:
                size = int(line)
                value = None if size < 0 else []
                if size > 0:
                    self._open.append((value, size))
                    at = after
                    continue
            elif kind == _STATUS:
                value = line
            elif kind == _ERROR:
                value = RefusalError(line.decode("utf-8", "replace"))
            else:
                break
            at = after
            if not self._open or self._closes(value):
                answers.append(value if not self._open else self._open.pop()[0])
        if at < len(data) and data[at] not in _KINDS:
            raise ValueError("no answer begins so")
        self._rest = bytearray(data[at:])
        return answers

    def _closes(self, value: Any) -> bool:
        """Puts a value where it belongs. Returns whether the outermost list is whole with it."""
        while True:
            inner, size = self._open[-1]
            inner.append(value)
            if len(inner) < size:
                return False
            if len(self._open) == 1:
                return True
            value = self._open.pop()[0]


def _bytes(data: bytes, at: int, size: int) -> tuple[bytes | None, int]:
    """Returns bytes that begin at a place, and where they end with what follows them."""
    return (None, at) if size < 0 else (data[at : at + size], at + size + 2)
