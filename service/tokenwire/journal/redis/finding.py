"""Finds runs that other gateways write, or wrote."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

from tokenwire.domain.context import Clock
from tokenwire.journal.journal import Kept
from tokenwire.journal.record import DamagedError
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.leases import Leases
from tokenwire.journal.redis.mirror import Mirror
from tokenwire.journal.redis.names import parts
from tokenwire.journal.redis.refusals import lost, unavailable
from tokenwire.journal.redis.store import WAKE, Message, Store, StoreError
from tokenwire.journal.redis.takeover import Takeover
from tokenwire.journal.redis.turns import Turns

# As RedisJournal.new_id makes them.
_RUN_ID = re.compile(r"run_([0-9a-f]{8})[0-9a-f]{16}")


class Finding:
    """Reads runs, and takes over at once those that nobody writes.

    Args:
        store: where they are.
        codec: reads them.
        holdings: where they come to.
        takeover: takes over those whose lease is over.
        leases: knows whether leases may be over for another reason than a writer's death.
        turns: of the runs' names.
        clock: for the time of an end.
        gateway: this gateway.
        lease_seconds: how long the store may be new without all writers having come back.
        new_incarnation: makes the id of a store that is empty.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        holdings: Holdings,
        takeover: Takeover,
        leases: Leases,
        turns: Turns,
        clock: Clock,
        *,
        gateway: str,
        lease_seconds: float,
        new_incarnation: Callable[[], str],
    ) -> None:
        self._store = store
        self._codec = codec
        self._holdings = holdings
        self._takeover = takeover
        self._leases = leases
        self._turns = turns
        self._clock = clock
        self._gateway = gateway
        self._lease_seconds = lease_seconds
        self._proposed = new_incarnation

    async def find(self, name: str) -> Kept | None:
        """Returns a run, whose log follows the store; None if it does not exist. See Journal."""
        run_id = parts(name)[1]
        async with self._turns.of(name):
            held = self.in_hand(name)
            if held is not None:
                return held
            stored = await self._store.load(name)
            if stored is None:
                await self._missing(run_id)
                return None
            if stored.ended_at is None and stored.lease_left <= 0 and not self._leases.patient:
                await self._take(name)
                held = self.in_hand(name)
                if held is not None:
                    return held
            try:
                mirror = Mirror(name, self._codec.read_record(name, stored.record), stored.lease.epoch, self._codec)
                self._holdings.room.reserve(run_id, mirror.share)
                try:
                    await mirror.catch_up(self._store, stored)
                except BaseException:
                    self._holdings.room.free(run_id)
                    raise
            except DamagedError:
                raise lost() from None
            mirror.ended_at = stored.ended_at
            if mirror.log.closed and mirror.ended_at is None:
                mirror.ended_at = self._clock.wall()
            self._holdings.mirrors[run_id] = mirror
            self._holdings.feed(mirror)
        if not mirror.log.closed:
            # The listener is to follow this one, too; without a word it does so a little later. A mirror that is made
            # and then not returned would never be let go.
            with suppress(StoreError):
                await self._store.post(self._gateway, Message(WAKE, ""))
        return self.in_hand(name)

    async def _take(self, name: str) -> None:
        try:
            await self._takeover.take_in_turn(name)
        except asyncio.CancelledError:
            # It may be this gateway's already.
            self._leases.nudge(name)
            raise

    def in_hand(self, name: str) -> Kept | None:
        """Returns a run that this gateway writes or follows."""
        run_id = parts(name)[1]
        writing, mirror = self._holdings.writings.get(run_id), self._holdings.mirrors.get(run_id)
        held = writing or mirror
        if held is None or held.name != name:
            return None
        return Kept(record=held.record, log=held.log, ended_at=held.ended_at)

    async def _missing(self, run_id: str) -> None:
        """Raises if a run that is not there may have been lost with the store."""
        now = await self._store.incarnation(self._proposed())
        shaped = _RUN_ID.fullmatch(run_id)
        if shaped is None or shaped[1] == now.id:
            return
        if now.age < self._lease_seconds:
            # Its writer may yet bring it back.
            raise unavailable()
        raise lost()
