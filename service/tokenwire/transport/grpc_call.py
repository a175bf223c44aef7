"""One RPC on grpc.aio, as handlers see it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

from grpc import aio

from tokenwire.domain.context import RequestContext
from tokenwire.domain.request import Delivery
from tokenwire.transport.call import ClientGoneError
from tokenwire.transport.driving import Done, drive
from tokenwire.transport.methods import Method

# Subscripted in the type stubs alone.
Context: TypeAlias = "aio.ServicerContext[Any, Any]"


def _ignored(error: BaseException | None) -> None:
    """Nobody asked."""


class GrpcCall:
    """One RPC on grpc.aio."""

    def __init__(
        self, context: Context, method: Method, request_context: RequestContext, encode: Callable[[object], bytes]
    ) -> None:
        self.method = method.name
        self.kind = method.kind
        self.parse = method.parse
        self.context = request_context
        self.delivery = Delivery()
        self.messages = 0
        self._context = context
        self._write: Any = context.write
        self._encode = encode
        # A write that no task waits for, and who is told of its end.
        self._writing: Any = None
        self._done: Done = _ignored

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the client sent; values that are not text are left out."""
        pairs = self._context.invocation_metadata() or ()
        return {key: value for key, value in pairs if isinstance(value, str)}

    @property
    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline, or None."""
        return self._context.time_remaining()

    async def write(self, message: object) -> None:
        """Sends one message."""
        data = self._encode(message)
        try:
            if not self.messages:
                await self._send_headers()
            await self._write(data)
        except (aio.InternalError, aio.UsageError) as error:
            raise ClientGoneError from error
        self.messages += 1

    async def _send_headers(self) -> None:
        """Sends the headers: else they go with the first message, and if that gets stuck, no status can be sent.

        They are sent to the end even by who is cancelled meanwhile: grpc would try to send them again with the status,
        and fail.
        """
        sending = asyncio.ensure_future(self._context.send_initial_metadata(()))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()
            raise

    def begin_write(self, message: object, done: Done) -> None:
        """Begins to send one message."""
        if not self.messages:
            drive(self.write(message), done)
            return
        self._writing = self._write(self._encode(message))
        self._done = done
        self._go_on()

    def _go_on(self, _: object = None) -> None:
        """Runs the write under way as far as it goes: as `drive`, with nothing made anew for each message."""
        try:
            future = self._writing.send(None)
        except StopIteration:
            self.messages += 1
            self._done(None)
        except (aio.InternalError, aio.UsageError):
            self._done(ClientGoneError())
        except (Exception, asyncio.CancelledError) as error:
            self._done(error)
        else:
            future._asyncio_future_blocking = False  # noqa: SLF001 - tasks do the same
            future.add_done_callback(self._go_on)


class GrpcRequests:
    """The requests of one RPC, as bytes.

    No generator: one that is left in the middle would be closed by the event loop, in another task and context.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> bytes:
        """Takes the next request from grpc, which reads ahead no further than the stream's window."""
        try:
            data = await self._context.read()
        except (aio.InternalError, aio.UsageError) as error:
            raise ClientGoneError from error
        if data is aio.EOF:
            raise StopAsyncIteration
        assert isinstance(data, bytes), "grpc was given no deserializer"
        return data
