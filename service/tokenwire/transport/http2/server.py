"""Serves methods on HTTP/2 of our own."""

import asyncio

from tokenwire.transport.http2.clients import Clients
from tokenwire.transport.http2.connection import Connection
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import ServerOptions

# Connections that the kernel takes before the event loop does.
BACKLOG = 4096
# How long the last words may take to a client that does not read.
FAREWELL_SECONDS = 0.5


class Http2Server:
    """A gRPC server on asyncio.

    Args:
        methods: what is served.
        options: how.
    """

    def __init__(self, methods: Methods, options: ServerOptions) -> None:
        self._methods = methods
        self._options = options
        self._server: asyncio.Server | None = None
        self._clients = Clients()

    async def start(self, address: str) -> int:
        """Listens and returns the port. Raises OSError if the address cannot be had."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connected, host.strip("[]"), int(port), backlog=BACKLOG)
        except OSError as error:
            raise OSError(f"cannot listen on {address}") from error
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, and cancels those that are still there after the grace."""
        if self._server is not None:
            self._server.close()
            self._server = None
        clients = self._clients
        for connection in list(clients.connections):
            connection.drain()
        await clients.left(grace_seconds)
        for connection in list(clients.connections):
            connection.cancel()
        while clients.tasks:
            await asyncio.wait(clients.tasks)
        await clients.left(FAREWELL_SECONDS)
        for connection in list(clients.connections):
            connection.abort()
        await clients.left(FAREWELL_SECONDS)

    def _connected(self) -> Connection:
        return Connection(self._methods, self._options, self._clients)
