"""Writes what runs got since the last time, in batches: one is under way while the next one forms."""

import asyncio
from collections.abc import Iterable
from itertools import islice

import structlog

from tokenwire.domain.context import Clock
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.store import Append, Outcome, Store, StoreError, Verdict
from tokenwire.journal.redis.writing import Writing

_log = structlog.get_logger()

# Runs in one batch: frames of all of them are in memory at once.
BATCH_RUNS = 128


class Appender:
    """The one path from the logs to the store. Readers see what the store has acknowledged.

    Args:
        store: takes the events.
        codec: makes them bytes.
        link: whether the store answers.
        holdings: the runs.
        clock: tells when a run ended, and how long the store is silent.
        lease_seconds: how long a writer may be silent.
        goes_on: whether readers see what the store does not have, while it is down.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        link: Link,
        holdings: Holdings,
        clock: Clock,
        *,
        lease_seconds: float,
        goes_on: bool,
    ) -> None:
        self._store = store
        self._codec = codec
        self._link = link
        self._holdings = holdings
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._goes_on = goes_on
        self._dirty: dict[str, Writing] = {}
        self._wake = asyncio.Event()
        self._turn = asyncio.Event()

    def take(self, writing: Writing) -> None:
        """Begins to write a run."""
        self._holdings.writings[writing.run_id] = writing
        writing.log.sink_into(lambda log: self.note(writing))
        if writing.pending:
            self.note(writing)

    def note(self, writing: Writing) -> None:
        """Says that a run has something that the store lacks."""
        self._dirty[writing.run_id] = writing
        if self._link.down and (self._goes_on or writing.log.closed):
            _publish(writing, writing.log.head)
        self._wake.set()

    def unheld(self) -> None:
        """Lets readers see what the store does not have, or ends the runs: the store is down."""
        for writing in list(self._holdings.writings.values()):
            if self._goes_on or writing.log.closed:
                _publish(writing, writing.log.head)
            else:
                self._holdings.keeper.fail(writing.run_id)

    @property
    def unwritten(self) -> list[Writing]:
        """Returns the runs of which the store lacks something."""
        return list(self._dirty.values())

    async def flush(self, writings: Iterable[Writing], seconds: float) -> None:
        """Waits until the store has all of these runs, but not longer than so many seconds."""
        waiting = list(writings)
        try:
            async with asyncio.timeout(seconds):
                while any(one.pending and not one.gone for one in waiting):
                    await self._turn.wait()
        except TimeoutError:
            left = sum(one.pending and not one.gone for one in waiting)
            _log.error("the journal's server does not take the end of what was written", runs=left)

    async def run(self) -> None:
        """Writes, until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                pause = await self._batch()
                self._turn.set()
                self._turn = asyncio.Event()
                if pause:
                    await asyncio.sleep(pause)

    def check(self, writing: Writing, outcome: Outcome) -> None:
        """Compares a run with what the store said of it when its lease was renewed."""
        if self._obeys(writing, outcome) and outcome.verdict is Verdict.DONE and outcome.head < writing.kept:
            # An older state of the store came back.
            writing.written(outcome.head)
        if writing.pending and not writing.gone:
            self.note(writing)

    async def _batch(self) -> float:
        """Writes one batch. Returns for how many seconds to wait before the next."""
        batch = list(islice(self._dirty.values(), BATCH_RUNS))
        for writing in batch:
            del self._dirty[writing.run_id]
        begun = self._clock.monotonic()
        try:
            await self._write(batch)
        except StoreError as error:
            return self._link.writes.failed(begun, error)
        else:
            self._link.writes.worked()
            return 0.0
        finally:
            for writing in batch:
                if writing.pending and not writing.gone:
                    self._dirty[writing.run_id] = writing

    async def _write(self, batch: list[Writing]) -> None:
        for writing in batch:
            if not writing.created and not writing.gone:
                outcome = await self._store.create(writing.new_run(self._codec, self._lease_seconds))
                if self._obeys(writing, outcome):
                    writing.created = True
                    writing.written(outcome.head)
        writable = [one for one in batch if one.created and one.pending and not one.gone]
        ends = [len(one.log.choice_ends) for one in writable]
        now = self._clock.wall()
        appends = [one.append(self._codec, self._lease_seconds, now) for one in writable]
        if appends:
            outcomes = await self._store.append(appends)
            for writing, append, known, outcome in zip(writable, appends, ends, outcomes, strict=True):
                self._judge(writing, append, known, outcome)
        for writing in batch:
            if writing.complete and not writing.finished:
                keep = writing.record.retention
                await self._store.finish(writing.name, writing.request, writing.record.created_at, keep)
                writing.finished = True

    def _judge(self, writing: Writing, append: Append, ends: int, outcome: Outcome) -> None:
        if not self._obeys(writing, outcome):
            return
        if outcome.verdict is Verdict.DONE:
            writing.noted(ends)
        elif outcome.head > writing.log.head or outcome.head == append.first - 1:
            # Somebody has written with this gateway's lease, or ended the run.
            _log.error("a run is not what its writer has written", run_id=writing.run_id)
            self._holdings.lose(writing.run_id)
            return
        writing.written(outcome.head)
        _publish(writing, outcome.head)
        self._holdings.settle(writing)

    def _obeys(self, writing: Writing, outcome: Outcome) -> bool:
        """Does what an outcome demands. Returns whether the run is this gateway's and is there."""
        if writing.gone:
            return False
        if outcome.verdict is Verdict.FENCED:
            _log.warning("another server goes on with a run", run_id=writing.run_id)
            self._holdings.lose(writing.run_id)
            # Runs that were forgotten here are not in hand any more.
            writing.gone = True
            return False
        if outcome.verdict is Verdict.MISSING:
            writing.missing()
        if outcome.cancelled and not writing.cancel_told and not writing.log.closed:
            writing.cancel_told = True
            self._holdings.keeper.cancel_here(writing.run_id)
        return outcome.verdict is not Verdict.MISSING


def _publish(writing: Writing, seq: int) -> None:
    if seq > writing.log.committed and not writing.gone:
        writing.log.publish(seq)
