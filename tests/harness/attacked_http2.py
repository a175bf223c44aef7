"""Our own HTTP/2 server, to be attacked: afterwards a good client is served, and nothing of the attack is left."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.raw_http2 import RawHttp2, grpc_message, raw_http2
from harness.transports import BIDI, GATHER, STREAM, UNARY, contexts, encode, encode_error, endpoints
from harness.waiting import until
from tokenwire.transport.call import Call, Handler, Requests
from tokenwire.transport.http2.server import Http2Server
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import ServerOptions

MESSAGE_MAX_BYTES = 4 * 1024 * 1024
# A stream's request for messages that never come.
WAIT = grpc_message(b"wait")


def several(count: int, size: int) -> bytes:
    """Makes a stream's request for so many messages of so many bytes."""
    return grpc_message(f"{count} {size}".encode())


def message(number: int, size: int) -> bytes:
    """Returns a message of such a stream."""
    return bytes([number % 251]) * size


def stream_of(count: int, size: int) -> bytes:
    """Returns such a stream as it has to arrive."""
    return b"".join(grpc_message(message(number, size)) for number in range(count))


@dataclass
class Attacked:
    """A running server.

    Attributes:
        server: the server itself.
        port: where it listens.
        started: how many handlers have begun.
        running: the calls whose handlers have begun and not ended.
    """

    server: Http2Server = field(init=False)
    port: int = field(init=False)
    started: int = 0
    running: set[Call] = field(default_factory=set)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.server._clients.connections)

    async def serves(self, raw: RawHttp2 | None = None) -> None:
        """Fails unless a good call is answered, on a connection of its own if none is given."""
        if raw is None:
            async with raw_http2(self.port) as raw:
                await self.serves(raw)
            return
        stream = await raw.request(UNARY, grpc_message(b"good"))
        assert (await raw.answered(stream)).get("grpc-status") == "0"
        assert raw.data[stream] == grpc_message(b"good")

    def handlers(self, others: Mapping[str, Handler]) -> dict[str, Handler]:
        """Returns what is served: echoes, and streams as they are asked for."""
        served: dict[str, Handler] = {UNARY: _echo, STREAM: _several, GATHER: _count, BIDI: _echoes, **others}
        return {method: self._counted(handler) for method, handler in served.items()}

    def _counted(self, handler: Handler) -> Handler:
        async def counted(request: Any, call: Call) -> Any:
            self.started += 1
            self.running.add(call)
            try:
                return await handler(request, call)
            finally:
                self.running.discard(call)

        return counted


async def _echo(request: bytes, call: Call) -> bytes:
    return request


async def _several(request: bytes, call: Call) -> None:
    if request == b"wait":
        await asyncio.Event().wait()
    count, size = map(int, request.split())
    for number in range(count):
        await call.write(message(number, size))


async def _count(requests: Requests, call: Call) -> bytes:
    return str([len(request) async for request in requests]).encode()


async def _echoes(requests: Requests, call: Call) -> None:
    async for request in requests:
        await call.write(request)


@asynccontextmanager
async def attacked(
    handlers: Mapping[str, Handler] | None = None, *, real_clients: bool = False, **options: Any
) -> AsyncIterator[Attacked]:
    """Serves while the block runs, and fails if anything of it is left, or if an error had to be logged.

    Args:
        handlers: take the place of those of their names.
        real_clients: there are some, and they close their connections when they like.
        options: of the server.
    """
    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    found = Attacked()
    methods = Methods(
        endpoints(found.handlers(handlers or {})),
        layered=lambda handler: handler,
        encode=encode,
        encode_error=encode_error,
        new_context=contexts(),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )
    values = {"keepalive_seconds": 10.0, "ping_timeout_seconds": 5.0} | options
    found.server = Http2Server(methods, ServerOptions(**values))
    found.port = await found.server.start("127.0.0.1:0")
    try:
        yield found
        if found.server._server is not None:
            await found.serves()
        await until(lambda: not found.running, "no handler is left")
        await until(lambda: not found.server._clients.tasks, "no task is left")
        if not real_clients:
            await until(lambda: not found.connections, "no connection is left")
        assert not errors
    finally:
        await found.server.stop(0)
        loop.set_exception_handler(None)
