"""A disk that is full, or broken, for as long as a test wants it."""

import errno
import os
from pathlib import Path

from tokenwire.journal.file.disk import Disk


class FaultyDisk(Disk):
    """Fails where it is told to.

    Attributes:
        room: bytes it still takes; None: any number.
        broken: the calls that fail with EIO.
        writes: how many there were that did not fail.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.broken: set[str] = set()
        self.writes = 0
        self.syncs = 0

    def create(self, path: Path) -> int:
        self._check("create")
        if self.room == 0:
            raise OSError(errno.ENOSPC, "no space", str(path))
        return super().create(path)

    def write(self, descriptor: int, data: memoryview, at: int) -> int:
        self._check("write")
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, "no space")
            # Half of what fits: the disk may take an entry in pieces.
            data = data[: max(1, min(self.room, len(data)) // 2)]
            self.room -= len(data)
        self.writes += 1
        return super().write(descriptor, data, at)

    def cut(self, descriptor: int, size: int) -> None:
        self._check("cut")
        super().cut(descriptor, size)

    def sync(self, descriptor: int) -> None:
        self._check("sync")
        self.syncs += 1
        super().sync(descriptor)

    def remove(self, path: Path) -> None:
        self._check("remove")
        super().remove(path)

    def _check(self, call: str) -> None:
        if call in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/the/path")
