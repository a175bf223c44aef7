"""A connection of our own HTTP/2 without a socket: bytes go in, bytes come out, and the test is the kernel."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from hyperframe.frame import Frame

from harness.transports import contexts, encode, encode_error, endpoints
from tokenwire.transport.call import Handler
from tokenwire.transport.http2.clients import Clients
from tokenwire.transport.http2.connection import Connection
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import ServerOptions

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MESSAGE_MAX_BYTES = 1_000_000


class MemoryTransport:
    """What a connection writes.

    Attributes:
        sent: all of it since the last look.
        eof: the server has closed its side.
        aborted: the connection is cut.
        closed: it is closed as a whole.
        reading: what comes is taken.
        no_eof: what closing one side alone raises; None: it can be done.
    """

    def __init__(self) -> None:
        self.sent = bytearray()
        self.eof = False
        self.aborted = False
        self.closed = False
        self.no_eof: Exception | None = None
        self.reading = True

    def write(self, data: bytes) -> None:
        """Takes bytes, and fails as uvloop does when nothing more may come."""
        if self.eof:
            raise RuntimeError("written after the end")
        self.sent += data

    def write_eof(self) -> None:
        if self.no_eof is not None:
            raise self.no_eof
        self.eof = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def taken(self) -> bytes:
        """Returns what was written since the last time."""
        data = bytes(self.sent)
        self.sent.clear()
        return data


def in_memory(handlers: Mapping[str, Handler], **options: Any) -> tuple[Connection, MemoryTransport, Clients]:
    """Returns a connection that has been made, its transport, and the server's clients."""
    methods = Methods(
        endpoints(handlers),
        layered=lambda handler: handler,
        encode=encode,
        encode_error=encode_error,
        new_context=contexts(),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )
    values = {"keepalive_seconds": 10.0, "ping_timeout_seconds": 5.0} | options
    clients = Clients()
    connection, transport = Connection(methods, ServerOptions(**values), clients), MemoryTransport()
    connection.connection_made(cast("asyncio.Transport", transport))
    return connection, transport, clients


def frames(data: bytes) -> list[Frame]:
    """Returns the frames of an answer. Fails if there is anything else in it."""
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        assert len(data) >= 9 + length, "a frame is cut"
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


async def turns(until: Callable[[], object], most: int = 1000) -> None:
    """Lets the event loop turn until something holds."""
    for _ in range(most):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to it")
