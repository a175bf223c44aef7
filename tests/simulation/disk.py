"""A gateway's disk: its process may die in the middle of a write, or the machine with all that was not forced out."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from simulation.loop import DiedError
from tokenwire.journal.file.disk import Disk


class MortalDisk(Disk):
    """The real calls, on a folder in memory.

    Args:
        rng: decides how much of the last write is there.
        die: kills the process.
    """

    def __init__(self, rng: random.Random, die: Callable[[], None]) -> None:
        self.dead = False
        self._rng = rng
        self._die = die
        self._writes_left: int | None = None
        self._names: dict[int, Path] = {}
        self._sizes: dict[Path, int] = {}
        self._synced: dict[Path, int] = {}
        self._named: set[Path] = set()

    def dies_at(self, writes: int) -> None:
        """From now on so many writes are done; then the process dies, before, in or right after the next one."""
        self._writes_left = writes

    def spare(self) -> None:
        """Lets the process live."""
        self._writes_left = None

    def create(self, path: Path) -> int:
        """Opens a file."""
        descriptor = super().create(path)
        self._names[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: memoryview, at: int) -> int:
        """Writes, unless the process dies."""
        if self._writes_left is not None and not self.dead:
            self._writes_left -= 1
            if self._writes_left < 0:
                part = data[: self._rng.choice((0, len(data), self._rng.randrange(len(data))))]
                if part:
                    super().write(descriptor, part, at)
                    self._sizes[self._names[descriptor]] = at + len(part)
                self.dead = True
                self._die()
                raise DiedError
        written = super().write(descriptor, data, at)
        self._sizes[self._names[descriptor]] = at + written
        return written

    def sync(self, descriptor: int) -> None:
        """Notes what is on the disk for sure."""
        path = self._names[descriptor]
        self._synced[path] = self._sizes.get(path, 0)

    def sync_folder(self, path: Path) -> None:
        """Notes that the names are on the disk."""
        self._named.update(self._names.values())

    def copy(self, source: Path, target: Path, *, power_lost: bool) -> None:
        """Copies what a restart finds: all that was written, or perhaps no more than was forced to the disk."""
        shutil.copytree(source, target)
        for path, size in self._sizes.items() if power_lost else ():
            copied = target / path.name
            synced = self._synced.get(path, 0)
            if not copied.exists():
                continue
            if path not in self._named and self._rng.random() < 0.5:
                copied.unlink()
                continue
            with copied.open("r+b") as file:
                file.truncate(self._rng.randint(synced, size))
