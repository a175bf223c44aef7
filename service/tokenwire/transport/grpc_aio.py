"""Serves our methods, and those of libraries, on grpc.aio.

How grpc.aio 1.85 behaves where its documentation is silent is pinned by tests/wire.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from inspect import isasyncgen
from typing import Any, TypeAlias

import grpc
from grpc import aio

from tokenwire.domain.context import RequestContext
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import AbortedError, ClientGoneError, Endpoint, Handler, Kind
from tokenwire.transport.grpc_call import Context, GrpcCall, GrpcRequests
from tokenwire.transport.grpc_reset import Resets

# Trailers beyond 8 KiB are refused at random. Details take up to 6 of it, and a byte of the message up to three.
MAX_MESSAGE_BYTES = 500
DETAILS_KEY = "grpc-status-details-bin"
SEND_MAX = "grpc.max_send_message_length"
# Stands for every method that is none: what clients call is not repeated.
UNKNOWN_METHOD = "/_OTHER"

# Subscripted in the type stubs alone.
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_KINDS = {
    (False, False): Kind.UNARY,
    (False, True): Kind.SERVER_STREAM,
    (True, False): Kind.CLIENT_STREAM,
    (True, True): Kind.BIDI,
}


def server_options(
    message_max_bytes: int, *, keepalive_seconds: float, ping_timeout_seconds: float
) -> list[tuple[str, int]]:
    """Returns the channel options of a server (measured: tests/wire/test_keepalive.py).

    Args:
        message_max_bytes: the largest request or response.
        keepalive_seconds: between two pings to a silent client.
        ping_timeout_seconds: until a client that does not answer a ping is taken for gone.
    """
    ping_timeout_ms = int(ping_timeout_seconds * 1000)
    return [
        ("grpc.max_receive_message_length", message_max_bytes),
        (SEND_MAX, message_max_bytes),
        ("grpc.max_metadata_size", 8192),
        ("grpc.absolute_max_metadata_size", 16384),
        # A lower bound leaves further streams of one channel hanging without a word.
        ("grpc.max_concurrent_streams", 4096),
        # Calls that arrive faster than the event loop takes them: above 1000, by default, some end as CANCELLED.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 100_000),
        # And however few it takes: those that have waited for 30 s, by default, end as CANCELLED as well.
        ("grpc.server_max_unrequested_time_in_server", 300),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", int(keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # The bound that counts: without it a frozen client is noticed after a minute.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ping often during a long prefill; the option with `recv` in its name has no effect.
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ]


class GrpcServer:
    """A grpc.aio server whose every method, ours or a library's, is served as a coroutine inside the same layers.

    Args:
        endpoints: our methods.
        layered: puts the interceptors around a handler.
        encode: what a handler returns or writes, to bytes.
        encode_error: an error and the rpc id, to a serialized google.rpc.Status.
        new_context: makes an RPC's context.
        options: channel options, as `server_options` makes them.
        status_seconds: how long a status may wait behind messages that its client does not read; then the stream is
            reset without it.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        layered: Callable[[Handler], Handler],
        encode: Callable[[object], bytes],
        encode_error: Callable[[TokenwireError, str], bytes],
        new_context: Callable[[], RequestContext],
        options: Sequence[tuple[str, int]],
        status_seconds: float = 30.0,
    ) -> None:
        self._status_seconds = status_seconds
        self._resets = Resets()
        self._layered = layered
        self._encode_message = encode
        self._send_max_bytes = dict(options)[SEND_MAX]
        self._encode_error = encode_error
        self._new_context = new_context
        self._foreign: dict[str, RpcHandler] = {}
        # Their messages are bytes already; a library's coroutine writes messages to the context itself.
        self._own = {endpoint.method: self._method(endpoint) for endpoint in endpoints}
        # One for all: what clients make up leaves nothing behind.
        none = Endpoint(method=UNKNOWN_METHOD, kind=Kind.BIDI, parse=bytes, handler=_unknown)
        self.unknown = self._method(none, None)
        self.grpc_server = aio.server(interceptors=[_Library(self)], options=list(options))
        self.grpc_server.add_generic_rpc_handlers([_Own(self._own)])

    async def start(self, address: str) -> int:
        """Listens and returns the port. Raises OSError if the address cannot be had."""
        try:
            port = self.grpc_server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        await self.grpc_server.start()
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, and cancels those that are still there after the grace."""
        await self.grpc_server.stop(grace_seconds)
        self._resets.close()

    def owns(self, method: str) -> bool:
        """Whether the method is one of ours."""
        return method in self._own

    def library(self, method: str, handler: RpcHandler) -> RpcHandler:
        """Puts a library's handler (health, reflection) into our shape."""
        found = self._foreign.get(method)
        if found is None:
            kind = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
            parse = handler.request_deserializer or bytes
            endpoint = Endpoint(method=method, kind=kind, parse=parse, handler=_adapted(handler))
            found = self._foreign[method] = self._method(endpoint, self._serialized)
        return found

    def _method(self, endpoint: Endpoint, serializer: Callable[[object], bytes] | None = None) -> RpcHandler:
        streams = endpoint.kind in (Kind.SERVER_STREAM, Kind.BIDI)
        # Inside the layers, so that an answer which cannot be encoded is a bug like any other.
        handler = self._layered(endpoint.handler if streams else self._encoded(endpoint.handler))
        parse = _strict(endpoint.parse)
        streamed = endpoint.kind in (Kind.CLIENT_STREAM, Kind.BIDI)

        async def serve(request: Any, context: Context) -> bytes | None:
            call = GrpcCall(
                context,
                method=endpoint.method,
                kind=endpoint.kind,
                parse=parse,
                request_context=self._new_context(),
                encode=self._encode,
            )
            try:
                answer: bytes | None = await handler(GrpcRequests(context) if streamed else request, call)
                return answer
            except TokenwireError as error:
                status = self._status(error, call.context.rpc_id)
            except AbortedError as error:
                if error.__cause__ is not None:
                    raise error.__cause__ from None
                return None
            except ClientGoneError:
                # Else grpc tries to send a status, and logs with a traceback that it cannot.
                raise asyncio.CancelledError from None
            # Out here, where the error no longer holds what the handler held: the status may have to wait.
            await self._abort(context, status)
            return None

        make = {
            Kind.UNARY: grpc.unary_unary_rpc_method_handler,
            Kind.SERVER_STREAM: grpc.unary_stream_rpc_method_handler,
            Kind.CLIENT_STREAM: grpc.stream_unary_rpc_method_handler,
            Kind.BIDI: grpc.stream_stream_rpc_method_handler,
        }[endpoint.kind]
        method: RpcHandler = make(serve, request_deserializer=None, response_serializer=serializer)
        return method

    def _encoded(self, handler: Handler) -> Handler:
        async def serve(request: Any, call: Any) -> bytes:
            return self._encode(await handler(request, call))

        return serve

    def _encode(self, message: object) -> bytes:
        data = self._encode_message(message)
        if len(data) > self._send_max_bytes:
            # grpc would end the call without a word to us or our details to the client.
            raise TokenwireError(
                Code.RESOURCE_EXHAUSTED,
                "MESSAGE_TOO_LARGE",
                "the answer is larger than a message may be; read it as a stream, without its full text at the end",
                metadata={"limit": str(self._send_max_bytes), "got": str(len(data))},
            )
        return data

    def _serialized(self, message: object) -> bytes:
        return message if isinstance(message, bytes) else self._encode(message)

    def _status(self, error: TokenwireError, rpc_id: str) -> "_Abort":
        trailers = ((DETAILS_KEY, self._encode_error(error, rpc_id)),)
        message = error.message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
        return _STATUS[error.code], message, trailers

    async def _abort(self, context: Context, status: "_Abort") -> None:
        try:
            async with asyncio.timeout(self._status_seconds):
                await context.abort(*status)
        except TimeoutError:
            self._resets.add(context)
        except aio.InternalError:
            # Nobody is there any more.
            pass
        raise asyncio.CancelledError


# A status, its message, and its trailers.
_Abort: TypeAlias = tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]

_STATUS = {code: next(one for one in grpc.StatusCode if one.value[0] == code) for code in Code}
_CODES = {status: code for code, status in _STATUS.items()}


async def _unknown(request: Any, call: Any) -> None:
    raise TokenwireError(Code.UNIMPLEMENTED, "METHOD_UNKNOWN", "the server has no such method")


def _adapted(handler: Any) -> Handler:
    """Makes a library's handler a coroutine that writes with `call.write`, so that it ends in the RPC's own task."""
    behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    async def serve(request: Any, call: Any) -> Any:
        try:
            result = behavior(request, call.grpc_context)
            if not isasyncgen(result):
                return await _awaited(result)
            async with aclosing(result) as messages:
                async for message in messages:
                    await call.write(message)
            return None
        except aio.AbortError as error:
            raise AbortedError(_CODES.get(call.grpc_context.code(), Code.UNKNOWN)) from error
        except (aio.InternalError, aio.UsageError) as error:
            # It writes to the context itself, and nobody is there any more.
            raise ClientGoneError from error

    return serve


def _strict(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except Exception as error:
            raise ValueError("not a message of this method") from error

    return parsed


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


class _Own(grpc.GenericRpcHandler):
    """Finds our methods."""

    def __init__(self, methods: dict[str, RpcHandler]) -> None:
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "RpcHandler | None":
        return self._methods.get(handler_call_details.method)


class _Library(aio.ServerInterceptor):
    """Catches the handlers that libraries registered themselves, and calls of methods that nobody has."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return self._server.unknown
        if self._server.owns(method):
            return handler
        return self._server.library(method, handler)
