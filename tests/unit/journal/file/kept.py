"""A file journal as its tests use it: started, written, left in different ways, and started again."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tokenwire.domain.context import Clock
from tokenwire.journal.file.journal import FileJournal
from tokenwire.journal.journal import Kept
from tokenwire.journal.log import RunLog

NOW = 1000.0
CLOCK = Clock(monotonic=lambda: NOW, wall=lambda: NOW)
ROOM = 10_000_000


class KeptRuns:
    """Takes what the journal hands over, and notes it."""

    def __init__(self) -> None:
        self.finished: dict[str, Kept] = {}
        self.running: dict[str, Kept] = {}
        self.failed: list[str] = []

    def restore(self, kept: Kept) -> None:
        self.finished[kept.record.run_id] = kept

    def take_over(self, kept: Kept) -> None:
        self.running[kept.record.run_id] = kept

    def lose(self, run_id: str) -> None:
        raise AssertionError

    def fail(self, run_id: str) -> None:
        self.failed.append(run_id)

    def cancel_here(self, run_id: str) -> None:
        raise AssertionError

    def unattended(self, run_id: str) -> None:
        raise AssertionError

    def log(self, run_id: str) -> RunLog:
        return {**self.finished, **self.running}[run_id].log


@asynccontextmanager
async def journal_in(
    folder: Path, max_bytes: int = ROOM, *, clock: Clock = CLOCK, **settings: Any
) -> AsyncIterator[tuple[FileJournal, KeptRuns]]:
    """Starts a journal, and closes it afterwards."""
    journal, kept = FileJournal(folder, max_bytes, clock=clock, **settings), KeptRuns()
    try:
        await journal.start(kept)
        yield journal, kept
    finally:
        await journal.close()


def crashed(folder: Path, name: str = "crashed") -> Path:
    """Returns a copy of a folder: what a process leaves that is killed now."""
    copy = folder.with_name(name)
    while True:
        if copy.exists():
            shutil.rmtree(copy)
        before = segments(folder)
        # Old ones are deleted meanwhile, in another thread.
        with suppress(shutil.Error):
            shutil.copytree(folder, copy)
            if segments(folder) == before:
                return copy


def segments(folder: Path) -> list[Path]:
    """The segments of a folder, the oldest first."""
    return sorted(folder.glob("*.journal"))
