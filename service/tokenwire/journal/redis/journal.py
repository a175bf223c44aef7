"""The journal that several gateways share: each run has one writer among them, and all of them read it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import structlog

from tokenwire.domain.context import Clock
from tokenwire.journal.journal import JournalError, Keeper, Kept
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord
from tokenwire.journal.redis.appender import Appender
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.finding import Finding
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.leases import Leases
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.names import parts, request_name, run_name, tenant_name
from tokenwire.journal.redis.opening import Opening
from tokenwire.journal.redis.readers import Readers
from tokenwire.journal.redis.redis_store import RedisStore
from tokenwire.journal.redis.refusals import unavailable
from tokenwire.journal.redis.store import CANCEL, RELEASED, UNATTENDED, Message, Store, StoreError
from tokenwire.journal.redis.tailer import Tailer
from tokenwire.journal.redis.takeover import Takeover
from tokenwire.journal.redis.turns import Turns
from tokenwire.journal.redis.writing import Writing
from tokenwire.journal.sealing import Sealer

_log = structlog.get_logger()

# At the start a store that does not answer may be starting, too.
START_SECONDS = 10.0


class RedisJournal:
    """Keeps runs in Redis 7 or later, or Valkey.

    Args:
        url: redis://, rediss:// or unix://.
        max_bytes: of the logs in this process.
        clock: the times of this process; leases are counted by the store's clock alone.
        rng: makes ids and jitter; ids can be guessed as far as it can be.
        gateway_id: another one for each process, and each start of it.
        lease_seconds: a writer that is silent for so long is replaced.
        outage: what becomes of runs while the store is down: "continue": readers here see what is not kept; "fail".
        outage_seconds: the store is down after failing for so long.
        sealer: encrypts what is stored.
        prefix: of all keys.
        username: at the server; empty: the default user.
        password: at the server; empty: none.
        store: takes the place of the server, for tests.

    Raises JournalError if the URL cannot be understood.
    """

    name = "redis"
    durable = True
    shared = True

    def __init__(
        self,
        url: str,
        max_bytes: int,
        *,
        clock: Clock,
        rng: random.Random,
        gateway_id: str,
        lease_seconds: float = 10.0,
        outage: Literal["continue", "fail"] = "continue",
        outage_seconds: float = 1.0,
        sealer: Sealer | None = None,
        prefix: str = "tokenwire",
        username: str = "",
        password: str = "",
        store: Store | None = None,
    ) -> None:
        self._store: Store = store or RedisStore(
            url, prefix, reply_seconds=outage_seconds, username=username, password=password
        )
        self._clock = clock
        self._rng = rng
        self._gateway = gateway_id
        self._lease_seconds = lease_seconds
        self._patience = outage_seconds
        self._goes_on = outage == "continue"
        self._codec = Codec(sealer)
        self._holdings = Holdings(max_bytes)
        self._link = Link(clock, outage_seconds, self._down, self._back)
        self._turns = Turns()
        self._appender = Appender(
            self._store,
            self._codec,
            self._link,
            self._holdings,
            clock,
            lease_seconds=lease_seconds,
            goes_on=self._goes_on,
        )
        self._takeover = Takeover(
            self._store,
            self._codec,
            self._holdings,
            self._appender,
            self._turns,
            clock,
            gateway=gateway_id,
            lease_seconds=lease_seconds,
        )
        self._leases = Leases(
            self._store,
            self._holdings,
            self._appender,
            self._takeover,
            self._link,
            clock,
            rng,
            gateway=gateway_id,
            lease_seconds=lease_seconds,
            recognise=self._recognise,
        )
        self._finding = Finding(
            self._store,
            self._codec,
            self._holdings,
            self._takeover,
            self._leases,
            self._turns,
            clock,
            gateway=gateway_id,
            lease_seconds=lease_seconds,
            new_incarnation=self._new_incarnation,
        )
        self._opening = Opening(
            self._store, self._codec, self._link, self._leases, lease_seconds=lease_seconds, goes_on=self._goes_on
        )
        self._readers = Readers(
            self._store, gateway_id, clock, lease_seconds=lease_seconds, on_lost=self._lost_with_its_writer
        )
        self._holdings.on_unfollowed = self._readers.lapse
        self._tailer = Tailer(
            self._store,
            self._holdings,
            self._link,
            gateway_id,
            seconds=max(0.05, lease_seconds / 3),
            on_message=self._told,
        )
        self._incarnation = ""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def held(self) -> int:
        """Bytes reserved or held in this process."""
        return self._holdings.room.held

    def new_id(self) -> str:
        """Makes a run's id; it tells in which life of the store the run was accepted."""
        return f"run_{self._incarnation}{self._rng.getrandbits(64):016x}"

    async def start(self, keeper: Keeper) -> None:
        """Waits for the store, and begins to look after runs."""
        self._holdings.keeper = keeper
        deadline = self._clock.monotonic() + START_SECONDS
        while True:
            try:
                await self._store.start()
                await self._recognise()
                # The writers of its runs may need a moment to come back to a store that was down itself.
                self._leases.be_patient(self._lease_seconds - await self._store.uptime())
                break
            except StoreError as error:
                if self._clock.monotonic() >= deadline:
                    raise JournalError(str(error)) from error
                await asyncio.sleep(0.2)
        jobs = (self._appender.run, self._tailer.run, self._leases.run, self._readers.run)
        self._tasks = [asyncio.create_task(_unbroken(job), name="journal") for job in jobs]

    async def open(self, record: RunRecord, replaces: str = "") -> RunLog:
        """Opens the log of a new run; see Journal."""
        run_id = record.run_id
        self._holdings.room.reserve(run_id, record.share)
        try:
            writing = Writing(record, RunLog(epoch=1), self._gateway, 1, created=False)
            await self._opening.open(writing, replaces)
        except BaseException:
            self._holdings.room.free(run_id)
            raise
        self._appender.take(writing)
        return writing.log

    def extend(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run that outgrows its share."""
        self._holdings.room.reserve(run_id, share)

    def settle(self, run_id: str, ended_at: float) -> None:
        """Replaces the share of a run that has ended by what it really holds, once the store has it."""
        writing = self._holdings.writings.get(run_id)
        if writing is not None:
            writing.ended_at, writing.settled = ended_at, True
            self._holdings.settle(writing)

    def forget(self, run_id: str) -> None:
        """Drops what this process holds of a run. An end that the store does not have yet is written all the same."""
        writing, mirror = self._holdings.writings.get(run_id), self._holdings.mirrors.get(run_id)
        if mirror is not None:
            self._readers.leave(mirror.name)
        if writing is not None and writing.log.closed and writing.pending and not self._link.down:
            del self._holdings.writings[run_id]
            self._holdings.room.free(run_id)
        else:
            self._holdings.drop(run_id)

    async def find(
        self, tenant: str, *, run_id: str = "", request_id: str = "", accepting: bool = False
    ) -> Kept | None:
        """Returns a run of another process; see Journal.

        Args:
            tenant: whose it is.
            run_id: its id, or
            request_id: the id of its request.
            accepting: the caller can start a run instead: while the store is down, and the policy is to go on, none is
                found.
        """
        try:
            if self._link.down:
                raise StoreError("the store is down")
            if not run_id:
                run_id = await self._store.resolve(tenant_name(tenant), request_name(request_id))
            return await self._finding.find(run_name(tenant, run_id)) if run_id else None
        except StoreError:
            if accepting and self._goes_on:
                return None
            raise unavailable() from None

    async def known(self, tenant: str) -> list[str]:
        """Returns the ids of a tenant's runs, newest first, those of this process among them."""
        try:
            return await self._store.known(tenant_name(tenant))
        except StoreError:
            raise unavailable() from None

    def attend(self, run_id: str, readers: int) -> None:
        """Tells other processes how many readers a run has here."""
        mirror = self._holdings.mirrors.get(run_id)
        if readers and mirror is not None and not mirror.log.closed:
            self._readers.attend(mirror.name)
        elif not readers and self._holdings.name(run_id):
            self._readers.leave(self._holdings.name(run_id), tell=mirror is not None)

    async def attended(self, run_id: str) -> bool:
        """Returns whether a run has readers at other processes; if that cannot be known now, it has."""
        name = self._holdings.name(run_id)
        if not name:
            return False
        try:
            # Readers may not have said again yet what a store lost.
            return self._link.down or self._leases.patient or await self._store.attended(name, self._gateway)
        except StoreError:
            return True

    async def cancel(self, run_id: str) -> None:
        """Asks the process that writes a run to cancel it."""
        name = self._holdings.name(run_id)
        if run_id in self._holdings.writings:
            self._holdings.keeper.cancel_here(run_id)
            return
        if not name:
            return
        try:
            stored = await self._store.cancel(name)
            if stored is None or stored.ended_at is not None:
                return
            if stored.lease_left > 0:
                await self._store.post(stored.lease.owner, Message(CANCEL, name))
            else:
                # Whoever takes it over is told that it was cancelled.
                self._leases.nudge(name)
        except StoreError:
            raise unavailable() from None

    async def hand_over(self, run_ids: list[str]) -> None:
        """Writes what is left of runs that this process no longer writes, and lets other gateways take them."""
        self._takeover.closed = True
        writings = [one for one in map(self._holdings.writings.get, run_ids) if one is not None]
        await self._appender.flush(writings, 2 * self._patience)
        released = [one.lease for one in writings if one.created and not one.gone]
        for one in writings:
            self._holdings.drop(one.run_id)
        with suppress(StoreError):
            await self._store.release(released)

    async def close(self) -> None:
        """Writes what is left and lets go of everything."""
        self._takeover.closed = True
        if self._tasks:
            await self._appender.flush(self._appender.unwritten, 2 * self._patience)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        self._tasks = []
        await self._store.close()

    async def _recognise(self) -> None:
        before = self._incarnation
        self._incarnation = (await self._store.incarnation(self._new_incarnation())).id
        if before not in ("", self._incarnation):
            _log.error("the journal's server has lost everything; what is in hand here is written again")
        self._readers.again()

    def _new_incarnation(self) -> str:
        return f"{self._rng.getrandbits(32):08x}"

    def _told(self, message: Message) -> None:
        run_id = parts(message.name)[1]
        if message.kind == RELEASED:
            self._leases.nudge(message.name)
        elif run_id in self._holdings.writings:
            if message.kind == CANCEL:
                self._holdings.keeper.cancel_here(run_id)
            elif message.kind == UNATTENDED:
                self._holdings.keeper.unattended(run_id)

    def _lost_with_its_writer(self, name: str) -> None:
        run_id = parts(name)[1]
        if run_id in self._holdings.mirrors:
            self._holdings.lose(run_id)

    def _down(self) -> None:
        _log.error("the journal's server is down", policy="continue" if self._goes_on else "fail")
        self._appender.unheld()

    def _back(self, was_down: bool) -> None:
        if was_down:
            _log.warning("the journal's server is back")
        self._leases.doubt()


async def _unbroken(job: Callable[[], Awaitable[None]]) -> None:
    """Runs a job until it is cancelled; a bug in it does not end the journal."""
    while True:
        try:
            await job()
        except Exception:
            _log.exception("the journal goes on after a bug")
            await asyncio.sleep(1.0)
