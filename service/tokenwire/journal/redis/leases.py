"""Keeps the leases of this gateway's runs, and looks for runs whose leases are over."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from tokenwire.domain.context import Clock
from tokenwire.journal.redis.appender import Appender
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.store import WAKE, Message, NewRun, Store, StoreError, Verdict
from tokenwire.journal.redis.takeover import Takeover, take_all
from tokenwire.journal.redis.writing import Writing

_log = structlog.get_logger()

# Expired leases that are looked at in one go.
LOOK_AT = 64
# While it is not known what the store has lost, it is asked so often.
UNSURE_SECONDS = 0.25


class Leases:
    """Renews, looks, and takes over, every third of a lease.

    Args:
        store: where the leases are.
        holdings: the runs.
        appender: is told what the store has of them.
        takeover: takes runs over.
        link: whether the store answers.
        clock: for times of grace.
        rng: for jitter, so that gateways do not look all at once.
        gateway: this gateway.
        lease_seconds: how long a writer may be silent.
        recognise: is awaited once the store answers again; finds out whether it has lost everything.
    """

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        appender: Appender,
        takeover: Takeover,
        link: Link,
        clock: Clock,
        rng: random.Random,
        *,
        gateway: str,
        lease_seconds: float,
        recognise: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._holdings = holdings
        self._appender = appender
        self._takeover = takeover
        self._link = link
        self._clock = clock
        self._rng = rng
        self._gateway = gateway
        self._lease_seconds = lease_seconds
        self._recognise = recognise
        self._unsure = False
        self._patient_until = 0.0
        self._nudged: set[str] = set()
        self._discarded: list[NewRun] = []
        self._event = asyncio.Event()

    @property
    def patient(self) -> bool:
        """Whether leases that are over may be so because nobody could renew them."""
        return self._clock.monotonic() < self._patient_until

    def be_patient(self, seconds: float) -> None:
        """Leaves leases that are over alone for a time: their writers may come back."""
        self._patient_until = self._clock.monotonic() + seconds

    def doubt(self) -> None:
        """Says that the store answers again, and may have lost something: everything is compared with it at once."""
        self._unsure = True
        self.be_patient(self._lease_seconds)
        self._event.set()

    def nudge(self, name: str) -> None:
        """Says that a run can be taken over now."""
        self._nudged.add(name)
        self._event.set()

    def discard(self, run: NewRun) -> None:
        """Removes a run that was created in vain."""
        self._discarded.append(run)
        self._event.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            begun = self._clock.monotonic()
            try:
                wrote = await self._round()
            except StoreError as error:
                self._unsure = True
                self._link.writes.failed(begun, error)
            else:
                if wrote:
                    self._link.writes.worked()
            pause = self._lease_seconds / 3 * self._rng.uniform(0.7, 1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause, UNSURE_SECONDS) if self._unsure else pause):
                    await self._event.wait()
            self._event.clear()

    async def _round(self) -> bool:
        """Does all there is to do. Returns whether anything was written."""
        unsure, self._unsure = self._unsure, False
        if unsure:
            await self._recognise()
            # The writers of what has expired could not reach the store either; this very round must not be the first.
            self.be_patient(self._lease_seconds)
        wrote = await self._renew(list(self._holdings.writings.values()) if unsure else self._alive())
        if (unsure or self._link.full) and not wrote:
            # What is not written to would not be missed.
            await self._store.post(self._gateway, Message(WAKE, ""))
            wrote = True
        while self._discarded:
            await self._store.discard(self._discarded[0])
            self._discarded.pop(0)
        nudged, self._nudged = self._nudged, set()
        try:
            order = sorted(nudged if self.patient else nudged | set(await self._store.expired(LOOK_AT)))
            self._rng.shuffle(order)
            await take_all(self._takeover, order)
        except StoreError:
            self._nudged |= nudged
            raise
        return wrote

    def _alive(self) -> list[Writing]:
        return [one for one in self._holdings.writings.values() if not one.log.closed]

    async def _renew(self, writings: list[Writing]) -> bool:
        there = [one for one in writings if one.created]
        if not there:
            return False
        keep = max(one.keep_seconds for one in there)
        outcomes = await self._store.renew([one.lease for one in there], self._lease_seconds, keep)
        for writing, outcome in zip(there, outcomes, strict=True):
            self._appender.check(writing, outcome)
        if any(outcome.verdict is Verdict.MISSING for outcome in outcomes):
            # Then others may be missing, too.
            self.doubt()
        return True
