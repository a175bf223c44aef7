"""Who is connected to a server, and what runs for them."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tokenwire.transport.http2.starts import Starts

if TYPE_CHECKING:
    from tokenwire.transport.http2.connection import Connection


class Clients:
    """Every connection of a server, and every handler's task on them.

    Attributes:
        connections: those that are open.
        tasks: those that run.
        starts: lets calls begin.
    """

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Future[Any]] = set()
        self.starts = Starts()
        self._nobody = asyncio.Event()

    def add(self, connection: "Connection") -> None:
        """Takes a connection."""
        self.connections.add(connection)
        self._nobody.clear()

    def remove(self, connection: "Connection") -> None:
        """Forgets a connection that is closed."""
        self.connections.discard(connection)
        if not self.connections:
            self._nobody.set()

    async def left(self, seconds: float) -> None:
        """Waits until nobody is connected, but no longer than so many seconds."""
        if self.connections and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._nobody.wait()
