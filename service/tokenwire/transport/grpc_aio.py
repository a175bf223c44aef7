"""Serves methods on grpc.aio.

How grpc.aio 1.85 behaves where its documentation is silent is pinned by tests/wire.
"""

import asyncio
from typing import Any, TypeAlias

import grpc
from grpc import aio

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import ClientGoneError, Kind
from tokenwire.transport.grpc_call import Context, GrpcCall, GrpcRequests
from tokenwire.transport.grpc_reset import Resets
from tokenwire.transport.methods import DETAILS_KEY, Method, Methods, Status
from tokenwire.transport.server import ServerOptions

# Subscripted in the type stubs alone.
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class GrpcServer:
    """A grpc.aio server whose every method is served as a coroutine in the RPC's own task.

    Args:
        methods: what is served.
        options: times and bounds.
    """

    def __init__(self, methods: Methods, options: ServerOptions) -> None:
        self._methods = methods
        self._status_seconds = options.status_seconds
        self._resets = Resets()
        self._server = aio.server(options=_options(methods.message_max_bytes, options))
        self._server.add_generic_rpc_handlers([_Handlers(self)])

    async def start(self, address: str) -> int:
        """Listens and returns the port. Raises OSError if the address cannot be had."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        await self._server.start()
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, and cancels those that are still there after the grace. May be called again."""
        await self._server.stop(grace_seconds)
        self._resets.close()

    def find(self, name: str) -> Method:
        """Returns the method of a name, or the one that answers for all that there are not."""
        return self._methods.find(name)

    def rpc_handler(self, method: Method) -> RpcHandler:
        """Fits a method to grpc. Its messages are bytes already."""

        async def serve(request: Any, context: Context) -> bytes | None:
            call = GrpcCall(context, method, self._methods.new_context(), self._methods.encode)
            try:
                answer: bytes | None = await method.handler(
                    GrpcRequests(context) if method.requests_streamed else request, call
                )
                return answer
            except TokenwireError as error:
                status = self._methods.status(error, call.context.rpc_id)
            except ClientGoneError:
                # Else grpc tries to send a status, and logs with a traceback that it cannot.
                raise asyncio.CancelledError from None
            # Out here, where the error no longer holds what the handler held: the status may have to wait.
            await self._abort(context, status)
            return None

        made: RpcHandler = _MAKE[method.kind](serve, request_deserializer=None, response_serializer=None)
        return made

    async def _abort(self, context: Context, status: Status) -> None:
        try:
            async with asyncio.timeout(self._status_seconds):
                await context.abort(_CODES[status.code], status.message, ((DETAILS_KEY, status.details),))
        except TimeoutError:
            self._resets.add(context)
        except aio.InternalError:
            # Nobody is there any more.
            pass
        raise asyncio.CancelledError


class _Handlers(grpc.GenericRpcHandler):
    """Finds what serves a method, and keeps it: one for each that there is, and one for all that there are not."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self._handlers: dict[str, RpcHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler:
        method = self._server.find(handler_call_details.method)
        found = self._handlers.get(method.name)
        if found is None:
            found = self._handlers[method.name] = self._server.rpc_handler(method)
        return found


_CODES = {code: next(one for one in grpc.StatusCode if one.value[0] == code) for code in Code}
_MAKE: dict[Kind, Any] = {
    Kind.UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.SERVER_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.CLIENT_STREAM: grpc.stream_unary_rpc_method_handler,
    Kind.BIDI: grpc.stream_stream_rpc_method_handler,
}


def _options(message_max_bytes: int, options: ServerOptions) -> list[tuple[str, int]]:
    """Returns the channel options of a server (measured: tests/wire/test_keepalive.py)."""
    ping_timeout_ms = int(options.ping_timeout_seconds * 1000)
    return [
        ("grpc.max_receive_message_length", message_max_bytes),
        ("grpc.max_send_message_length", message_max_bytes),
        ("grpc.max_metadata_size", 8192),
        ("grpc.absolute_max_metadata_size", 16384),
        # A lower bound leaves further streams of one channel hanging without a word.
        ("grpc.max_concurrent_streams", 4096),
        # Closes each further one at once.
        ("grpc.max_allowed_incoming_connections", options.connections_max),
        # Calls that arrive faster than the event loop takes them: above 1000, by default, some end as CANCELLED.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 100_000),
        # And however few it takes: those that have waited for 30 s, by default, end as CANCELLED as well.
        ("grpc.server_max_unrequested_time_in_server", 300),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", int(options.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # The bound that counts: without it a frozen client is noticed after a minute.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ping often during a long prefill; the option with `recv` in its name has no effect.
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ]
