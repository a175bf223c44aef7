"""Follows the runs of other gateways, and hears what those say: on one connection for all."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from tokenwire.journal.record import DamagedError
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.mirror import Mirror
from tokenwire.journal.redis.names import parts
from tokenwire.journal.redis.store import Entry, Message, Store, StoreError

_log = structlog.get_logger()


class Tailer:
    """Listens.

    Args:
        store: what it listens to.
        holdings: the mirrors that it feeds.
        link: whether the store answers.
        gateway: this gateway.
        seconds: how long to listen at a time; a connection that is dead is noticed after that.
        on_message: is told what other gateways say.
    """

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        link: Link,
        gateway: str,
        *,
        seconds: float,
        on_message: Callable[[Message], None],
    ) -> None:
        self._store = store
        self._holdings = holdings
        self._link = link
        self._gateway = gateway
        self._seconds = seconds
        self._on_message = on_message
        self._own = ""
        self._shared = ""

    async def run(self) -> None:
        """Listens until it is cancelled."""
        while True:
            begun = self._link.reads.now()
            try:
                await self._listen()
            except StoreError as error:
                reads = self._link.reads
                await asyncio.sleep(max(0.02, reads.failed(begun, error, reads.now())))
            else:
                self._link.reads.worked()

    async def _listen(self) -> None:
        followed = {one.name: one for one in self._holdings.mirrors.values() if not one.log.closed}
        places = {name: mirror.place for name, mirror in followed.items()}
        heard = await self._store.listen(self._gateway, places, self._own, self._shared, self._seconds)
        self._own, self._shared = heard.own, heard.shared
        for name, entries in heard.entries.items():
            # It may have been taken over or forgotten meanwhile.
            if self._holdings.mirrors.get(parts(name)[1]) is followed[name]:
                await self._feed(followed[name], entries)
        for message in heard.messages:
            self._on_message(message)

    async def _feed(self, mirror: Mirror, entries: Sequence[Entry]) -> None:
        try:
            if not mirror.feed(entries):
                stored = await self._store.load(mirror.name)
                if stored is None or self._holdings.mirrors.get(mirror.run_id) is not mirror:
                    return
                await mirror.read_again(self._store, stored)
        except DamagedError:
            _log.warning("what was read of a run is not there any more", run_id=mirror.run_id)
            if self._holdings.mirrors.get(mirror.run_id) is mirror:
                self._holdings.lose(mirror.run_id)
            return
        if self._holdings.mirrors.get(mirror.run_id) is mirror:
            self._holdings.feed(mirror)
