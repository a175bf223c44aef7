"""A server with a test's own handlers inside the real interceptors."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.trace import NoOpTracer, Tracer

from harness.chosen_transport import CHOSEN
from tokenwire.app import make_transport
from tokenwire.domain.context import LOCAL_TENANT, RequestContext
from tokenwire.interceptors.admission import Admission
from tokenwire.interceptors.interceptor import stacked
from tokenwire.interceptors.stack import stack
from tokenwire.rpc.events import encode
from tokenwire.rpc.requests import delivery_of
from tokenwire.rpc.status import encode_error
from tokenwire.transport.call import Endpoint, Handler, Kind
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import Server, ServerOptions
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest, ServerInfo

UNARY = "/test.Odd/Unary"
STREAM = "/test.Odd/Stream"
GATHER = "/test.Odd/Gather"
BIDI = "/test.Odd/Bidi"
MESSAGE_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Odd:
    """A running server of odd handlers and a channel to it. Its rpc ids are rpc-0, rpc-1 and so on."""

    transport: Server
    port: int
    channel: grpc.aio.Channel

    def unary(self, **options: Any) -> Any:
        """Calls the unary handler."""
        call: Any = self.channel.unary_unary(UNARY, response_deserializer=ServerInfo.FromString)
        return call(b"", **options)

    def stream(self, **options: Any) -> Any:
        """Calls the streaming handler."""
        call: Any = self.channel.unary_stream(STREAM, response_deserializer=ServerInfo.FromString)
        return call(b"", **options)


@asynccontextmanager
async def odd(
    *,
    unary: Handler | None = None,
    stream: Handler | None = None,
    gather: Handler | None = None,
    bidi: Handler | None = None,
    tracer: Tracer | None = None,
    admission: Admission | None = None,
) -> AsyncIterator[Odd]:
    """Serves the handlers while the block runs. Requests are empty, answers are ServerInfo."""
    admission = admission or Admission(1000, rng=random.Random(0))
    interceptors = stack(tracer or NoOpTracer(), time.monotonic, admission, delivery_of)
    numbers = count()
    served = (
        (UNARY, Kind.UNARY, unary),
        (STREAM, Kind.SERVER_STREAM, stream),
        (GATHER, Kind.CLIENT_STREAM, gather),
        (BIDI, Kind.BIDI, bidi),
    )
    methods = Methods(
        [
            Endpoint(method=method, kind=kind, parse=_parse, handler=handler)
            for method, kind, handler in served
            if handler is not None
        ],
        layered=lambda handler: stacked(handler, interceptors),
        encode=encode,
        encode_error=encode_error,
        new_context=lambda: RequestContext(
            rpc_id=f"rpc-{next(numbers)}", tenant=LOCAL_TENANT, received_at=time.monotonic()
        ),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )
    server = make_transport(CHOSEN, methods, ServerOptions(keepalive_seconds=10, ping_timeout_seconds=5))
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Odd(server, port, channel)
    finally:
        await server.stop(0)


def _parse(data: bytes) -> GetServerInfoRequest:
    try:
        return GetServerInfoRequest.FromString(data)
    except DecodeError as error:
        raise ValueError("not a message of this method") from error
