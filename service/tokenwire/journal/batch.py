"""A batch's journal, in memory: what became of its items. Their answers are in the journals of their runs."""

import asyncio
from dataclasses import dataclass

from tokenwire.domain.events import RunError, Usage
from tokenwire.journal.waiters import Waiters


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStarted:
    """The batch was opened."""

    batch_id: str
    retention_seconds: int
    max_in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemStarted:
    """An item was accepted as a run."""

    item_id: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemDone:
    """An item ended: with an error, or else with the answer that its run's journal has. Refused ones have no run."""

    item_id: str
    run_id: str
    error: RunError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEnd:
    """Every item ended, and no more come; nothing follows."""

    succeeded: int
    failed: int
    usage: Usage


BatchEvent = BatchStarted | ItemStarted | ItemDone | BatchEnd


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """An event, its number, and when it was written in milliseconds since the batch was opened."""

    seq: int
    at_ms: int
    event: BatchEvent


class BatchLog:
    """Appended to by the batch alone; any number of readers."""

    def __init__(self) -> None:
        self._entries: list[BatchEntry] = []
        self._waiters = Waiters()

    @property
    def head(self) -> int:
        """The number of the last event."""
        return len(self._entries)

    @property
    def ended(self) -> bool:
        """Whether `BatchEnd` is written."""
        return bool(self._entries) and isinstance(self._entries[-1].event, BatchEnd)

    def append(self, event: BatchEvent, at_ms: int) -> int:
        """Appends an event and returns its number."""
        assert not self.ended, "nothing follows the end of a batch"
        self._entries.append(BatchEntry(self.head + 1, at_ms, event))
        self.wake()
        return self.head

    def entry(self, seq: int) -> BatchEntry | None:
        """Returns the event with a number, or None if there is none yet."""
        return self._entries[seq - 1] if 1 <= seq <= self.head else None

    def wake(self) -> None:
        """Wakes whoever waits."""
        self._waiters.wake()

    def changed(self) -> asyncio.Future[None]:
        """Returns a future that ends at the next wake-up."""
        return self._waiters.wait()
