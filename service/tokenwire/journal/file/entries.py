"""What stands in a segment: a header, then entries, each of which holds what was written in one turn.

An entry is a mark, a CRC-32, a length (both 32 bits, least significant byte first), and an array of operations in
MessagePack, which may be encrypted. The mark and the begin of the CRC are the segment's own, made at random: neither
text nor what another file left on the disk is taken for an entry.
"""

import struct
import zlib
from collections.abc import Iterator

import msgspec

from tokenwire.journal.record import DamagedError
from tokenwire.journal.sealing import Sealer

# Header: what never changes (magic, version, their CRC), then salt, flags, CRC.
_OUTER = struct.Struct("<8sII")
_INNER = struct.Struct("<8sII")
_MAGIC = b"TOKENWJ\0"
_SEALED = 1
VERSION = 1
SALT_BYTES = 8
HEADER_BYTES = _OUTER.size + _INNER.size
_FRONT = struct.Struct("<4sII")
_AFTER_CRC = 8


class RunOp(msgspec.Struct, array_like=True, tag=0):
    """A run and all its events so far; replaces what was written of it before.

    Attributes:
        number: names the run in what follows.
        record: as `encode_record` has it.
        epoch: the number of the run's writer.
        takeovers: the head at which each but the first began.
        frame: its events, or nothing.
        ended_at: wall-clock seconds, or None.
    """

    number: int
    record: bytes
    epoch: int
    takeovers: list[tuple[int, int]]
    frame: bytes
    ended_at: float | None


class FrameOp(msgspec.Struct, array_like=True, tag=1, gc=False):
    """More events of a run."""

    number: int
    frame: bytes


class TakenOverOp(msgspec.Struct, array_like=True, tag=2):
    """A new writer goes on with a run, after the event numbered `head`."""

    number: int
    epoch: int
    head: int


class SettledOp(msgspec.Struct, array_like=True, tag=3):
    """A run ended at this time (wall-clock seconds), with the event numbered `head`."""

    number: int
    head: int
    ended_at: float


class ForgottenOp(msgspec.Struct, array_like=True, tag=4):
    """Runs that nobody can ask for any more."""

    numbers: list[int]


FRAME_TAG = 1
Op = RunOp | FrameOp | TakenOverOp | SettledOp | ForgottenOp
# Of a frame, which is written for every token, no object is made.
Written = Op | tuple[int, int, bytes]


class UnknownVersionError(Exception):
    """A later version wrote this."""


class Entries:
    """Writes and reads the entries of one segment.

    Args:
        salt: the segment's own random bytes.
        sealer: encrypts; None: they are plain.
    """

    def __init__(self, salt: bytes, sealer: Sealer | None) -> None:
        self._salt = salt
        self._sealer = sealer
        self._mark = salt[:4]
        self._seed = int.from_bytes(salt[4:], "little")

    def header(self) -> bytes:
        """Returns the segment's header."""
        outer = struct.pack("<8sI", _MAGIC, VERSION)
        inner = struct.pack("<8sI", self._salt, _SEALED if self._sealer else 0)
        return b"".join(part + struct.pack("<I", zlib.crc32(part)) for part in (outer, inner))

    def pack(self, ops: list[Written]) -> bytearray:
        """Returns an entry."""
        entry = bytearray(_FRONT.size)
        if self._sealer is None:
            _encoder.encode_into(ops, entry, _FRONT.size)
        else:
            entry += self._sealer.seal(_encoder.encode(ops), self._salt)
        _FRONT.pack_into(entry, 0, self._mark, 0, len(entry) - _FRONT.size)
        crc = zlib.crc32(memoryview(entry)[_AFTER_CRC:], self._seed)
        _FRONT.pack_into(entry, 0, self._mark, crc, len(entry) - _FRONT.size)
        return entry

    def read(self, data: bytes) -> Iterator[tuple[int, list[Op] | None]]:
        """Yields where each entry of a segment ends, and what it holds.

        None stands for bytes that cannot be trusted. Raises WrongKeyError if the first entry cannot be opened.
        """
        at, first = HEADER_BYTES, True
        while at < len(data):
            end = self._end(data, at)
            if end is None:
                at = self._next(data, at + 1)
                yield at, None
                continue
            try:
                ops: list[Op] | None = self._ops(memoryview(data)[at + _FRONT.size : end])
            except DamagedError:
                if first and self._sealer is not None:
                    raise WrongKeyError from None
                ops = None
            yield end, ops
            at, first = end, False

    def _ops(self, payload: memoryview) -> list[Op]:
        try:
            return _decoder.decode(payload if self._sealer is None else self._sealer.open(payload, self._salt))
        except (msgspec.MsgspecError, ValueError) as error:
            raise DamagedError("an entry cannot be read") from error

    def _end(self, data: bytes, at: int) -> int | None:
        """Where the entry at a place ends, or None if there is none."""
        if at + _FRONT.size > len(data):
            return None
        mark, crc, length = _FRONT.unpack_from(data, at)
        end = at + _FRONT.size + int(length)
        if mark != self._mark or end > len(data):
            return None
        whole = zlib.crc32(memoryview(data)[at + _AFTER_CRC : end], self._seed) == crc
        return end if whole else None

    def _next(self, data: bytes, at: int) -> int:
        """The first place from here on at which an entry begins, or the end."""
        while (at := data.find(self._mark, at)) >= 0:
            if self._end(data, at) is not None:
                return at
            at += 1
        return len(data)


class WrongKeyError(Exception):
    """What is whole cannot be opened: the key differs."""


def read_header(data: bytes) -> tuple[bytes, bool]:
    """Returns a segment's salt, and whether it is encrypted.

    Raises UnknownVersionError, DamagedError if it cannot be trusted.
    """
    if len(data) < HEADER_BYTES:
        raise DamagedError("a header is cut")
    magic, version, crc = _OUTER.unpack_from(data)
    if magic != _MAGIC or crc != zlib.crc32(data[: _OUTER.size - 4]):
        raise DamagedError("a header is damaged")
    if version > VERSION:
        raise UnknownVersionError
    salt, flags, crc = _INNER.unpack_from(data, _OUTER.size)
    if crc != zlib.crc32(data[_OUTER.size : HEADER_BYTES - 4]):
        raise DamagedError("a header is damaged")
    return salt, bool(flags & _SEALED)


_encoder: msgspec.msgpack.Encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Op]] = msgspec.msgpack.Decoder(list[Op])
