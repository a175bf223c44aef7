"""One file of the journal: entries are appended to it whole, or not at all."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from tokenwire.journal.file.disk import Disk
from tokenwire.journal.file.entries import Entries, Written
from tokenwire.journal.sealing import Sealer

_SUFFIX = ".journal"


class Segment:
    """A segment that is written.

    Args:
        path: the file; it is made with the first entry.
        salt: random bytes for it.
        sealer: encrypts its entries.

    Attributes:
        number: orders the segments.
        size: bytes in it.
        runs: how many runs need it: those whose first entry is here. Those before it are then needed by nobody.
    """

    def __init__(self, path: Path, salt: bytes, sealer: Sealer | None, disk: Disk) -> None:
        self.path = path
        self.number = number_of(path)
        self.size = 0
        self.runs = 0
        self._entries = Entries(salt, sealer)
        self._disk = disk
        self._descriptor: int | None = None
        self._named = False
        self._torn = False

    def pack(self, ops: list[Written]) -> bytearray:
        """Returns operations as the entry that `append` takes."""
        return self._entries.pack(ops)

    def append(self, entry: bytes | bytearray) -> None:
        """Appends all of an entry, or nothing. Raises OSError."""
        if self._descriptor is None:
            self._descriptor = self._disk.create(self.path)
        if self._torn:
            self._disk.cut(self._descriptor, self.size)
            self._torn = False
        if not self.size:
            entry = self._entries.header() + entry
        at, left = self.size, memoryview(entry)
        try:
            while left:
                done = self._disk.write(self._descriptor, left, at)
                if not done:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                at, left = at + done, left[done:]
        except OSError:
            self._cut()
            raise
        self.size = at

    def sync(self) -> None:
        """Waits until all of it is on the disk. Raises OSError; what was not on the disk before, may then be lost."""
        if self._descriptor is not None:
            self._disk.sync(self._descriptor)
            if not self._named:
                self._disk.sync_folder(self.path.parent)
                self._named = True

    def close(self) -> None:
        """Writes no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Deletes the file. Raises OSError."""
        self.close()
        self._disk.remove(self.path)

    def _cut(self) -> None:
        """Removes the part of an entry; nothing follows it before that has worked."""
        assert self._descriptor is not None
        self._torn = True
        with suppress(OSError):
            self._disk.cut(self._descriptor, self.size)
            self._torn = False


class OldSegment:
    """A segment that an earlier start wrote; as Segment, but nothing is appended."""

    def __init__(self, path: Path, size: int, disk: Disk) -> None:
        self.path = path
        self.number = number_of(path)
        self.size = size
        self.runs = 0
        self._disk = disk

    def close(self) -> None:
        """It is not open."""

    def remove(self) -> None:
        """Deletes the file. Raises OSError."""
        self._disk.remove(self.path)


def path_of(folder: Path, number: int) -> Path:
    """Returns where a segment is."""
    return folder / f"{number:010}{_SUFFIX}"


def number_of(path: Path) -> int:
    """Returns a segment's number, 0 for another file."""
    name = path.name.removesuffix(_SUFFIX)
    return int(name) if path.name.endswith(_SUFFIX) and name.isascii() and name.isdigit() else 0


def found_in(folder: Path) -> list[Path]:
    """Returns the segments of a folder, the oldest first."""
    return sorted((path for path in folder.iterdir() if number_of(path)), key=number_of)
