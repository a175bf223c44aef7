"""Every transport that serves our handlers: what one promises (docs/decisions/0015) is tested on all of them.

A further one is one more entry in TRANSPORTS. All other tests run on one (chosen_transport.py).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

from google.rpc.status_pb2 import Status

from tokenwire.app import make_transport
from tokenwire.domain.context import LOCAL_TENANT, RequestContext
from tokenwire.domain.errors import TokenwireError
from tokenwire.settings import Transport as Name
from tokenwire.transport.call import Endpoint, Handler, Kind
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import ServerOptions

UNARY = "/test.Promises/Unary"
STREAM = "/test.Promises/Stream"
GATHER = "/test.Promises/Gather"
BIDI = "/test.Promises/Bidi"
KINDS = {UNARY: Kind.UNARY, STREAM: Kind.SERVER_STREAM, GATHER: Kind.CLIENT_STREAM, BIDI: Kind.BIDI}
MESSAGE_MAX_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Served:
    """A transport that serves.

    Attributes:
        port: where.
        stop: takes no more calls, and cancels those that are there after so many seconds.
    """

    port: int
    stop: Callable[[float], Awaitable[None]]


class Transport(Protocol):
    """Serves a handler for each of the four methods that has one, while a block runs.

    Handlers write and return bytes, or a Word. Nothing stands around them.
    """

    def __call__(
        self, handlers: Mapping[str, Handler], *, status_seconds: float = 30.0
    ) -> AbstractAsyncContextManager[Served]:
        """Starts it; `status_seconds` is how long a status may wait for a client that does not read."""
        ...


class Word:
    """A message that is not bytes yet."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.encoded = 0


def encode(message: object) -> bytes:
    """Makes bytes of what a handler writes. Raises TypeError for anything else."""
    if isinstance(message, Word):
        message.encoded += 1
        return message.text.encode()
    if not isinstance(message, bytes):
        raise TypeError("not a message")
    return message


def encode_error(error: TokenwireError, rpc_id: str) -> bytes:
    """Makes details that tell the reason and the call."""
    data: bytes = Status(code=error.code, message=f"{error.reason} in {rpc_id}").SerializeToString()
    return data


def parse(data: bytes) -> str:
    """Takes text. Raises what it likes for anything else."""
    return data.decode()


def endpoints(handlers: Mapping[str, Handler]) -> list[Endpoint]:
    """Returns an endpoint for each handler."""
    return [Endpoint(method=name, kind=KINDS[name], parse=parse, handler=one) for name, one in handlers.items()]


def contexts() -> Callable[[], RequestContext]:
    """Returns what makes the contexts: rpc-0, rpc-1 and so on."""
    numbers = count()
    return lambda: RequestContext(rpc_id=f"rpc-{next(numbers)}", tenant=LOCAL_TENANT, received_at=time.monotonic())


@asynccontextmanager
async def _serving(
    name: Name, handlers: Mapping[str, Handler], *, status_seconds: float = 30.0
) -> AsyncIterator[Served]:
    methods = Methods(
        endpoints(handlers),
        layered=lambda handler: handler,
        encode=encode,
        encode_error=encode_error,
        new_context=contexts(),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )
    options = ServerOptions(keepalive_seconds=10, ping_timeout_seconds=5, status_seconds=status_seconds)
    server = make_transport(name, methods, options)
    port = await server.start("127.0.0.1:0")
    try:
        yield Served(port=port, stop=server.stop)
    finally:
        await server.stop(0)


NAMES: tuple[Name, ...] = ("http2", "grpc_aio")
TRANSPORTS: dict[str, Transport] = {name: partial(_serving, name) for name in NAMES}
