"""Makes this gateway the writer of runs that nobody writes any more."""

import asyncio

import structlog

from tokenwire.domain.context import Clock
from tokenwire.domain.errors import TokenwireError
from tokenwire.journal.journal import Kept
from tokenwire.journal.record import DamagedError, RunRecord
from tokenwire.journal.redis.appender import Appender
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.mirror import Mirror
from tokenwire.journal.redis.names import parts
from tokenwire.journal.redis.store import Store, Stored
from tokenwire.journal.redis.turns import Turns
from tokenwire.journal.redis.writing import Writing

_log = structlog.get_logger()


class Takeover:
    """Takes runs over.

    Args:
        store: where they are.
        codec: reads them.
        holdings: where they come to.
        appender: writes them from then on.
        turns: of the runs' names, so that a run is not found and taken at the same time.
        clock: for the numbers of epochs.
        gateway: this gateway.
        lease_seconds: how long it may be silent as a writer.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        holdings: Holdings,
        appender: Appender,
        turns: Turns,
        clock: Clock,
        *,
        gateway: str,
        lease_seconds: float,
    ) -> None:
        self._store = store
        self._codec = codec
        self._holdings = holdings
        self._appender = appender
        self._turns = turns
        self._clock = clock
        self._gateway = gateway
        self._lease_seconds = lease_seconds
        self._unreadable: set[str] = set()
        self.closed = False

    async def take(self, name: str) -> Writing | None:
        """Takes a run over if its lease is over, and hands it to the keeper. Returns it if this gateway writes it."""
        async with self._turns.of(name):
            return await self.take_in_turn(name)

    async def take_in_turn(self, name: str) -> Writing | None:
        """As `take`, for one whose turn it is."""
        run_id = parts(name)[1]
        if self.closed or run_id in self._holdings.writings or name in self._unreadable:
            return self._holdings.writings.get(run_id)
        stored = await self._store.load(name)
        if stored is None or stored.ended_at is not None:
            # Nobody needs to look after it any more.
            await self._store.take(name, self._gateway, self._lease_seconds, self._least_epoch())
            return None
        record = self._readable(name, stored)
        if record is None or not self._reserve(record):
            return None
        taken = None
        try:
            taken = await self._store.take(name, self._gateway, self._lease_seconds, self._least_epoch())
            writing = await self._write_on(name, record, taken) if taken is not None else None
            if taken is None or writing is None:
                return None
        except DamagedError:
            self._damaged(name)
            return None
        finally:
            if run_id not in self._holdings.writings and run_id not in self._holdings.mirrors:
                self._holdings.room.free(run_id)
        _log.info("goes on with a run of another server", run_id=run_id, epoch=taken.lease.epoch, head=taken.head)
        self._holdings.keeper.take_over(Kept(record=record, log=writing.log))
        if taken.cancelled:
            writing.cancel_told = True
            self._holdings.keeper.cancel_here(run_id)
        return writing

    async def _write_on(self, name: str, record: RunRecord, taken: Stored) -> Writing | None:
        log = (await self._read(name, record, taken)).log
        if self.closed:
            # This gateway began to shut down meanwhile.
            await self._store.release([taken.lease])
            return None
        log.epoch, log.takeovers = taken.lease.epoch, list(taken.takeovers)
        self._holdings.mirrors.pop(record.run_id, None)
        writing = Writing(record, log, self._gateway, taken.lease.epoch, created=True)
        self._appender.take(writing)
        if log.head > log.committed:
            log.publish(log.head)
        return writing

    async def _read(self, name: str, record: RunRecord, taken: Stored) -> Mirror:
        """Returns the run's whole log, which nobody else writes now; if it can, the copy that readers have here."""
        mirror = self._holdings.mirrors.get(record.run_id)
        if mirror is not None:
            try:
                await mirror.catch_up(self._store, taken)
                if mirror.log.head == taken.head:
                    return mirror
            except DamagedError:
                pass
            # What was read here is not what the store has; the readers come back and are told.
            self._holdings.lose(record.run_id)
            self._holdings.room.reserve(record.run_id, record.share)
        mirror = Mirror(name, record, taken.lease.epoch, self._codec)
        await mirror.catch_up(self._store, taken)
        return mirror

    def _least_epoch(self) -> int:
        """By the clock: what a store gave out and lost again must not be given out once more (docs/model)."""
        return int(self._clock.wall())

    def _readable(self, name: str, stored: Stored) -> RunRecord | None:
        try:
            return self._codec.read_record(name, stored.record)
        except DamagedError:
            self._damaged(name)
            return None

    def _damaged(self, name: str) -> None:
        self._unreadable.add(name)
        _log.error("a run cannot be read; is the journal's key the same everywhere?", run_id=parts(name)[1])

    def _reserve(self, record: RunRecord) -> bool:
        mirror = self._holdings.mirrors.get(record.run_id)
        try:
            self._holdings.room.reserve(record.run_id, max(record.share, mirror.share if mirror else 0))
        except TokenwireError:
            _log.warning("no room to go on with a run of another server", run_id=record.run_id)
            return False
        return True


async def take_all(takeover: Takeover, names: list[str]) -> None:
    """Takes runs over, a few at a time."""
    for first in range(0, len(names), _AT_ONCE):
        taking = (takeover.take(name) for name in names[first : first + _AT_ONCE])
        for result in await asyncio.gather(*taking, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


_AT_ONCE = 8
