"""Writes what runs got since the last time, in batches: one is under way while the next one forms."""

import asyncio
from collections.abc import Iterable
from functools import partial
from itertools import islice

import structlog

from tokenwire.domain.context import Clock
from tokenwire.journal.log import RunLog
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.store import Append, Outcome, Store, StoreError, Verdict
from tokenwire.journal.redis.writing import Writing
from tokenwire.journal.waiters import Waiters

_log = structlog.get_logger()

# Runs in one batch, and bytes after which no further frame is put into it: all of them are in memory at once, and the
# server is to answer in time, however much an outage has left to be written.
BATCH_RUNS = 128
BATCH_BYTES = 2**20


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
        self._dirty: dict[Writing, None] = {}
        self._wake = asyncio.Event()
        self._turns = Waiters()

    def take(self, writing: Writing) -> None:
        """Begins to write a run."""
        self._holdings.writings[writing.run_id] = writing
        writing.log.sink_into(partial(self.note, writing))
        if writing.pending:
            self.note(writing)

    def note(self, writing: Writing, log: RunLog | None = None) -> None:
        """Says that a run has something that the store lacks; the sink of its log."""
        if not self._dirty:
            self._wake.set()
        self._dirty[writing] = None
        if self._link.down and (self._goes_on or writing.log.closed):
            _publish(writing, writing.log.head)

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
        return list(self._dirty)

    async def flush(self, writings: Iterable[Writing], seconds: float) -> None:
        """Waits until the store has all of these runs, but not longer than so many seconds."""
        waiting = list(writings)
        try:
            async with asyncio.timeout(seconds):
                while any(one.pending and not one.gone for one in waiting):
                    await self._turns.wait()
        except TimeoutError:
            left = sum(one.pending and not one.gone for one in waiting)
            _log.error("the journal's server does not take the end of what was written", runs=left)

    async def run(self) -> None:
        """Writes, until it is cancelled."""
        while True:
            while self._dirty:
                pause = await self._batch()
                self._turns.wake()
                if pause:
                    await asyncio.sleep(pause)
            self._wake.clear()
            await self._wake.wait()

    def check(self, writing: Writing, outcome: Outcome) -> None:
        """Compares a run with what the store said of it when its lease was renewed."""
        if self._obeys(writing, outcome) and outcome.verdict is Verdict.DONE and outcome.head < writing.kept:
            # An older state of the store came back.
            writing.written(outcome.head)
        if writing.pending and not writing.gone:
            self.note(writing)

    async def _batch(self) -> float:
        """Writes one batch. Returns for how many seconds to wait before the next."""
        batch = list(islice(self._dirty, BATCH_RUNS))
        for writing in batch:
            del self._dirty[writing]
        begun = self._clock.monotonic()
        try:
            await self._write(batch)
        except StoreError as error:
            return self._link.writes.failed(begun, error)
        else:
            self._link.writes.worked()
            return 0.0
        finally:
            self._dirty.update((one, None) for one in batch if one.pending and not one.gone)

    async def _write(self, batch: list[Writing]) -> None:
        for writing in batch:
            if not writing.created and not writing.gone:
                outcome = await self._store.create(writing.new_run(self._codec, self._lease_seconds))
                if self._obeys(writing, outcome):
                    writing.created = True
                    writing.written(outcome.head)
        writable = self._writable(batch)
        if writable:
            outcomes = await self._store.append([append for _, append, _ in writable])
            for (writing, append, ends), outcome in zip(writable, outcomes, strict=True):
                self._judge(writing, append, ends, outcome)
        ended = [one for one in batch if one.log.closed and one.complete and not one.finished]
        if ended:
            await self._finish(ended)

    def _writable(self, batch: list[Writing]) -> list[tuple[Writing, Append, int]]:
        """Returns what is to be appended, and how many choices of its run have ended."""
        now, room = self._clock.wall(), BATCH_BYTES
        writable = []
        for one in batch:
            if room > 0 and one.created and one.pending and not one.gone:
                append = one.append(self._codec, self._lease_seconds, now)
                room -= len(append.frame)
                writable.append((one, append, len(one.log.choice_ends)))
        return writable

    async def _finish(self, ended: list[Writing]) -> None:
        """Lets the store tidy up after runs, all at once: the others wait."""
        steps = []
        for one in ended:
            record = one.record
            steps.append(self._store.finish(one.name, one.request, record.created_at, record.retention))
        results = await asyncio.gather(*steps, return_exceptions=True)
        for one, result in zip(ended, results, strict=True):
            one.finished = result is None
        error = next((result for result in results if result is not None), None)
        if error is not None:
            raise error

    def _judge(self, writing: Writing, append: Append, ends: int, outcome: Outcome) -> None:
        if not self._obeys(writing, outcome):
            return
        if outcome.verdict is Verdict.DONE:
            writing.acknowledged(outcome.head, ends)
        elif outcome.head > writing.log.head or outcome.head == append.first - 1:
            # Somebody has written with this gateway's lease, or ended the run.
            _log.error("a run is not what its writer has written", run_id=writing.run_id)
            self._holdings.lose(writing.run_id)
            return
        else:
            writing.written(outcome.head)
        _publish(writing, outcome.head)
        if writing.settled:
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
