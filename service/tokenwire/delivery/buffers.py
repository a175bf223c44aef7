"""Where a channel's text is cut into pieces."""

from typing import Protocol


class Buffer(Protocol):
    """Tells how far a channel's text may go out. Holds no text itself: the journal does."""

    def cut(self, text: bytearray, sent: int, written: int) -> int:
        """Returns the end of the last whole piece in text[sent:written], or `sent` if there is none.

        All three are UTF-8 byte offsets between code points; pieces are counted from `sent` on.
        """
        ...


class NoBuffer:
    """Text goes out as it comes."""

    def cut(self, text: bytearray, sent: int, written: int) -> int:
        """Returns `written`."""
        return written


class SizeBuffer:
    """Pieces of as many whole code points as fit into `size` bytes; at least one."""

    def __init__(self, size: int) -> None:
        self._size = size

    def cut(self, text: bytearray, sent: int, written: int) -> int:
        """Returns the end of the last whole piece."""
        while written - sent >= self._size:
            end = sent + self._size
            if end < written:
                end = code_point_start(text, end)
            if end == sent:
                # One code point is longer than a whole piece.
                end = next_code_point(text, sent)
            sent = end
        return sent


def code_point_start(text: bytearray, offset: int) -> int:
    """Returns the start of the code point that holds the byte at `offset`."""
    while text[offset] & 0xC0 == 0x80:
        offset -= 1
    return offset


def next_code_point(text: bytearray, offset: int) -> int:
    """Returns the end of the code point that starts at `offset`."""
    offset += 1
    while offset < len(text) and text[offset] & 0xC0 == 0x80:
        offset += 1
    return offset
