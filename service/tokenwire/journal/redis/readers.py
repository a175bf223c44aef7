"""Tells other gateways who reads their runs here."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tokenwire.domain.context import Clock
from tokenwire.journal.redis.store import UNATTENDED, Message, Store, StoreError


class Readers:
    """The runs of other gateways that have readers here.

    Args:
        store: where that is told.
        gateway: this gateway.
        clock: tells for how long a run is missing.
        lease_seconds: for how long what was told counts; it is told again every third of that.
        on_lost: is told of a run that the store has lost, and that nobody has written again since.
    """

    def __init__(
        self, store: Store, gateway: str, clock: Clock, *, lease_seconds: float, on_lost: Callable[[str], None]
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._attended: dict[str, float | None] = {}
        self._left: dict[str, bool] = {}
        self._event = asyncio.Event()

    def attend(self, name: str) -> None:
        """Says that a run has readers here."""
        self._left.pop(name, None)
        self._attended[name] = None
        self._event.set()

    def leave(self, name: str, *, tell: bool = True) -> None:
        """Says that a run has no readers here. `tell`: its writer, if there are none elsewhere either."""
        if name in self._attended:
            del self._attended[name]
            self._left[name] = tell
            self._event.set()

    def lapse(self, name: str) -> None:
        """Says nothing more of a run: its readers were sent away, and are expected back."""
        self._attended.pop(name, None)

    def again(self) -> None:
        """Tells everything again at once: the store may have lost it."""
        self._event.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            # Whoever writes or listens notices what fails, and says when all is to be told again.
            with suppress(StoreError):
                await self._tell()
            try:
                async with asyncio.timeout(self._lease_seconds / 3):
                    await self._event.wait()
            except TimeoutError:
                continue
            self._event.clear()

    async def _tell(self) -> None:
        while self._left:
            name, tell = next(iter(self._left.items()))
            owner = await self._store.leave(name, self._gateway)
            if owner and tell and owner != self._gateway:
                await self._store.post(owner, Message(UNATTENDED, name))
            # Unless a reader has come meanwhile.
            self._left.pop(name, None)
        names = list(self._attended)
        if not names:
            return
        there = await self._store.attend(names, self._gateway, self._lease_seconds)
        now = self._clock.monotonic()
        for name, found in zip(names, there, strict=True):
            if name not in self._attended:
                continue
            since = self._attended[name]
            if found:
                self._attended[name] = None
            elif since is None:
                self._attended[name] = now
            elif now - since >= self._lease_seconds:
                del self._attended[name]
                self._on_lost(name)
