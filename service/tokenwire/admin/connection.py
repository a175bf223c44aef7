"""One connection to the admin port, with an end."""

import asyncio
from typing import Any

from aiohttp import web


class Connection(web.RequestHandler):
    """aiohttp's, which alone would wait for ever for a request that never comes, or a reader that never reads.

    Args:
        known: all connections there are; this one joins and leaves them.
        most: how many there may be; those above are closed at once.
        seconds: how long this one may take in all.
        manager: aiohttp's server.
        options: aiohttp's own.
    """

    __slots__ = ("_known", "_most", "_seconds", "_timer")

    def __init__(
        self, known: "set[Connection]", most: int, seconds: float, manager: web.Server, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._known = known
        self._most = most
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to read, unless there are too many."""
        super().connection_made(transport)
        if len(self._known) >= self._most:
            self.abort()
            return
        self._known.add(self)
        self._timer = self._loop.call_later(self._seconds, self.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends."""
        self._known.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Closes the connection, whatever is under way."""
        # uvloop's transports are asyncio's by shape alone.
        if self.transport is not None:
            self.transport.abort()
