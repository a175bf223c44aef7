"""Bytes of a request's stream to the messages in them."""

import zlib
from typing import Final

from tokenwire.domain.errors import Code, TokenwireError

PREFIX_BYTES: Final = 5
# zlib's windows: with gzip's header, and with zlib's, which HTTP calls deflate.
_WINDOWS = {"gzip": 31, "deflate": 15}


class Incoming:
    """The messages of one stream.

    Args:
        max_bytes: the largest message, compressed and not.
        encoding: how those are compressed that say they are.
    """

    __slots__ = ("_encoding", "_have", "_max_bytes", "_need", "_parts")

    def __init__(self, max_bytes: int, encoding: str) -> None:
        self._max_bytes = max_bytes
        self._encoding = encoding
        # What is there of the next message, its prefix included, and how much has to be there.
        self._parts: list[bytes] = []
        self._have = 0
        self._need = PREFIX_BYTES

    @property
    def cut(self) -> bool:
        """Whether there is a part of a message."""
        return self._have > 0

    def take(self, data: bytes) -> list[bytes]:
        """Returns the messages that are whole now. Raises TokenwireError for one that is too large or unreadable."""
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        if len(self._parts) > 1:
            data = b"".join(self._parts)
        found, start, end, need = [], 0, len(data), PREFIX_BYTES
        while end - start >= PREFIX_BYTES:
            size = int.from_bytes(data[start + 1 : start + PREFIX_BYTES], "big")
            if size > self._max_bytes:
                raise self._too_large()
            need = PREFIX_BYTES + size
            if end - start < need:
                break
            message = data[start + PREFIX_BYTES : start + need]
            found.append(self._unpacked(message) if data[start] else message)
            start, need = start + need, PREFIX_BYTES
        self._parts = [data[start:]] if start < end else []
        self._have, self._need = end - start, need
        return found

    def _unpacked(self, data: bytes) -> bytes:
        if self._encoding in ("", "identity"):
            raise TokenwireError(
                Code.INTERNAL, "MALFORMED_REQUEST", "the request says that it is compressed, and not how"
            )
        window = _WINDOWS.get(self._encoding)
        if window is None:
            raise TokenwireError(
                Code.UNIMPLEMENTED, "ENCODING_UNKNOWN", "requests may be compressed by gzip or deflate alone"
            )
        unpacker = zlib.decompressobj(window)
        try:
            message = unpacker.decompress(data, self._max_bytes + 1)
        except zlib.error as error:
            raise TokenwireError(
                Code.INTERNAL, "MALFORMED_REQUEST", "the request is not compressed as it says"
            ) from error
        if len(message) > self._max_bytes:
            raise self._too_large()
        if not unpacker.eof:
            raise TokenwireError(Code.INTERNAL, "MALFORMED_REQUEST", "the compressed request is cut short")
        return message

    def _too_large(self) -> TokenwireError:
        return TokenwireError(
            Code.RESOURCE_EXHAUSTED,
            "MESSAGE_TOO_LARGE",
            "the request is larger than a message may be",
            metadata={"limit": str(self._max_bytes)},
        )
