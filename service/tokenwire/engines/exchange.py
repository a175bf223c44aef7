"""One request whose reply is a stream, on a connection of its own: the engine's end of the way that every token goes.

Each token of each run passes here. A client library would wake a task for each, through a reader, a response and a
stream of its own; this hands the bytes on where they arrive.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httptools

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.failure import cut, garbled, refusal, retry_after

MAX_ERROR_BYTES = 64 * 1024

# Takes the bytes of one read, and returns whether the answer is whole.
ReadChunk = Callable[[bytes], bool]


class Exchange(asyncio.Protocol):
    """Sends a request and hands out the body of its reply, if that is a stream.

    Args:
        request: all its bytes.
        media_type: what the reply must be.
        read: is called for each read with what came of the body, framing taken off. What it raises ends the exchange.
        wall: wall-clock seconds, for Retry-After dates.

    Attributes:
        done: ends when `read` says that the answer is whole or the reply ends, and fails with EngineError else.
    """

    def __init__(self, request: bytes, media_type: str, read: ReadChunk, wall: Callable[[], float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._media_type = media_type
        self._read = read
        self._wall = wall
        self._transport: asyncio.Transport | None = None
        self._headers: dict[bytes, bytes] = {}
        self._answered = self._accepted = self._complete = False
        self._body: list[bytes] = []
        # Parts of the body, until the whole read is parsed.
        self.on_body = self._body.append
        self._error_body = b""
        # It calls what is named on_*.
        self._parser = httptools.HttpResponseParser(self)

    def pause(self) -> None:
        """Reads no further for a while."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Closes the connection, which is how engines learn that nobody listens."""
        if not self.done.cancel() and not self.done.cancelled():
            # Who is not interested has nothing to retrieve.
            self.done.exception()
        if self._transport is not None:
            # An orderly end would wait for a request that the engine does not read.
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the request."""
        # uvloop's is one in all but name.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        """Takes one read."""
        if self.done.done():
            return
        failure: EngineError | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            failure = cut() if self._answered else garbled()
        try:
            body = self._body
            if body:
                part = body[0] if len(body) == 1 else b"".join(body)
                body.clear()
                if not self._accepted:
                    self._refused(part)
                elif self._read(part):
                    self.done.set_result(None)
            if failure is not None:
                raise failure
            if self._complete:
                self._end()
        except Exception as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the exchange, if its reply had not ended."""
        if self.done.done():
            return
        # A body without a length ends here; any other one is cut.
        bounded = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if exc is not None or not self._answered or bounded:
            self._fail(cut())
            return
        try:
            self._end()
        except EngineError as error:
            self._fail(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Looks whether the reply is a stream."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._answered = True
        kind = self._headers.get(b"content-type", b"").lower()
        encoding = self._headers.get(b"content-encoding", b"identity").lower()
        self._accepted = status == 200 and kind.startswith(self._media_type.encode()) and encoding == b"identity"

    def on_message_complete(self) -> None:
        """Notes the end of the reply; one that only says that there will be a reply is none."""
        if self._answered:
            self._complete = True
        else:
            self._headers.clear()

    def _refused(self, body: bytes) -> None:
        if self._parser.get_status_code() == 200:
            raise _no_stream()
        self._error_body += body
        if len(self._error_body) > MAX_ERROR_BYTES:
            raise self._refusal()

    def _end(self) -> None:
        if self.done.done():
            return
        if not self._accepted:
            raise _no_stream() if self._parser.get_status_code() == 200 else self._refusal()
        self.done.set_result(None)

    def _refusal(self) -> EngineError:
        told = self._headers.get(b"retry-after")
        wait = retry_after(told.decode("latin-1") if told is not None else None, self._wall())
        return refusal(self._parser.get_status_code(), self._error_body[:MAX_ERROR_BYTES], wait=wait)

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _no_stream() -> EngineError:
    return EngineError(Code.UNAVAILABLE, "UPSTREAM_PROTOCOL", "the engine did not answer with a stream", retryable=True)


class Inbox:
    """Holds what was read until somebody takes it, for a reader that has to wait in between."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._parts

    def put(self, part: Any) -> int:
        """Adds a part and returns how many there are."""
        self._parts.append(part)
        self.wake()
        return len(self._parts)

    def wake(self) -> None:
        """Wakes who waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[Any]:
        """Returns what there is."""
        parts, self._parts = self._parts, []
        return parts

    async def wait(self) -> None:
        """Waits until there is something, or somebody wakes it."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
