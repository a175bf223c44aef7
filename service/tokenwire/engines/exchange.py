"""A connection on which streams are asked for, one after another: the engine's end of the way that every token goes.

Each token of each run passes here. A client library would wake a task for each, through a reader, a response and a
stream of its own; this hands the payloads on where their bytes arrive.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import httptools

from tokenwire.domain.errors import EngineError
from tokenwire.engines.failure import cut, garbled
from tokenwire.engines.framing import EVENTS, EventSplitter, Framing, LineSplitter
from tokenwire.engines.refused import Refused

# The end of a connection that was being closed when the request went out comes within a round trip.
_UNHEARD_SECONDS = 1.0
# uvloop reads on while its buffer of 250 KiB comes back full: megabytes, before anybody else has a turn.
LARGE_READ_BYTES = 131_072

# Takes the payloads of one read, and returns whether the answer is whole.
ReadPayloads = Callable[[list[bytes]], bool]

_TOLD = frozenset({b"content-type", b"content-encoding", b"content-length", b"transfer-encoding", b"retry-after"})
_BROKEN = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class UnheardError(Exception):
    """A connection that had waited for a request ended before a byte of the reply came."""


class Exchange(asyncio.Protocol):
    """Sends a request and hands out the body of its reply, if that is a stream; then the next one.

    Args:
        wall: wall-clock seconds, for Retry-After dates.
        ended: is called with this when the connection has ended.

    Attributes:
        made_at: when the connection was made, in the event loop's seconds.
    """

    __slots__ = (
        "_answered",
        "_bounded",
        "_complete",
        "_done",
        "_ended",
        "_framing",
        "_headers",
        "_keeps",
        "_parser",
        "_parts",
        "_read",
        "_refused",
        "_splitter",
        "_transport",
        "_unheard_until",
        "_wall",
        "_whole",
        "made_at",
        "on_body",
    )

    # Both are there as long as the connection is.
    _transport: asyncio.Transport
    _parser: httptools.HttpResponseParser
    _done: asyncio.Future[None] | None
    _read: ReadPayloads
    _splitter: EventSplitter | LineSplitter | None
    _refused: Refused | None
    _headers: dict[bytes, bytes]

    def __init__(self, wall: Callable[[], float], ended: Callable[["Exchange"], None]) -> None:
        self._wall = wall
        self._ended = ended
        # Parts of the body, until the whole read is parsed.
        self._parts: list[bytes] = []
        self.on_body = self._parts.append
        self._done = None
        self._answered = self._bounded = self._complete = self._whole = self._keeps = False
        self._unheard_until = self.made_at = 0.0
        self._forget()

    @property
    def ready(self) -> bool:
        """Whether another request can be sent: the last reply is at its end, and the connection is open."""
        return self._complete and self._keeps and not self._transport.is_closing()

    @property
    def unfinished(self) -> bool:
        """Whether the reply stopped inside an event."""
        return self._splitter is not None and self._splitter.unfinished

    def ask(self, request: bytes, framing: Framing, read: ReadPayloads) -> asyncio.Future[None]:
        """Sends a request.

        Args:
            request: all its bytes.
            framing: what the reply must be, and what splits it.
            read: is called for each read that brings payloads. What it raises ends the exchange.

        Returns what ends when `read` says that the answer is whole or the reply ends, and fails with EngineError or
        UnheardError else.
        """
        loop = asyncio.get_running_loop()
        # Only a connection that has waited may have been closed without our knowing.
        self._unheard_until = loop.time() + _UNHEARD_SECONDS if self._complete else 0.0
        self._framing = framing
        self._read = read
        self._headers = {}
        self._answered = self._bounded = self._complete = self._whole = False
        self._keeps = True
        self._done = done = loop.create_future()
        self._transport.write(request)
        return done

    def pause(self) -> None:
        """Reads no further for a while, if the reply goes on."""
        if not self._complete and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def release(self) -> bool:
        """Lets go of what the exchange was for. Returns whether the connection can be used again once it is `ready`.

        That is so if the reply has ended, or its reader had the whole answer: its end is then on its way.
        """
        done, self._done = self._done, None
        if done is not None and not done.cancel() and not done.cancelled():
            # Who is not interested has nothing to retrieve.
            done.exception()
        self._forget()
        # A server that has answered before it had the whole request may take the rest for the next one.
        sent = not self._transport.get_write_buffer_size()
        return sent and self._keeps and (self._complete or self._whole)

    def close(self) -> None:
        """Closes the connection, which is how engines learn that nobody listens."""
        # An orderly end would wait for a request that the engine does not read.
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self.made_at = asyncio.get_running_loop().time()
        # uvloop's is one in all but name.
        self._transport = cast("asyncio.Transport", transport)
        # It calls what is named on_*, and reads one reply after another.
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Takes one read."""
        done = self._done
        if done is None or done.done():
            self._read_on(data)
            return
        if len(data) >= LARGE_READ_BYTES:
            self.pause()
            asyncio.get_running_loop().call_soon(self.resume)
        failure: EngineError | None = None
        try:
            self._parser.feed_data(data)
        except _BROKEN:
            self._keeps = False
            if not self._complete:
                failure = cut() if self._answered else garbled()
        try:
            parts = self._parts
            if parts:
                part = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                if self._splitter is not None:
                    payloads = self._splitter.feed(part)
                    if payloads and self._read(payloads):
                        self._whole = True
                        done.set_result(None)
                elif self._refused is not None:
                    self._refused.add(part)
            if failure is not None:
                raise failure
            if self._complete:
                self._end()
        except Exception as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the exchange, if its reply had not ended."""
        self._ended(self)
        # The parser holds this, by the methods that it calls.
        del self._parser
        if self._done is None or self._done.done():
            return
        if asyncio.get_running_loop().time() < self._unheard_until:
            self._fail(UnheardError())
        # A body without a length ends here; any other one is cut.
        elif exc is not None or not self._answered or self._bounded:
            self._fail(cut())
        else:
            self._end()

    def on_message_begin(self) -> None:
        """Notes that the server has heard the request. Nothing is read of what begins after the end of the reply."""
        if self._complete:
            raise httptools.HttpParserError
        self._unheard_until = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a header that tells something here; what follows the body does not."""
        name = name.lower()
        if name in _TOLD and not self._answered:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Looks whether the reply is a stream."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._answered = True
        headers, self._headers = self._headers, _NONE
        self._bounded = b"content-length" in headers or b"transfer-encoding" in headers
        kind = headers.get(b"content-type", b"").lower()
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if status == 200 and kind.startswith(self._framing.media_type.encode()) and encoding == b"identity":
            self._splitter = self._framing.splitter()
        else:
            self._refused = Refused(status, headers.get(b"retry-after"), self._wall)

    def on_message_complete(self) -> None:
        """Notes the end of the reply; one that only says that there will be a reply is none."""
        if not self._answered:
            self._headers.clear()
            return
        self._complete = True
        self._keeps = self._keeps and self._parser.should_keep_alive()

    def _read_on(self, data: bytes) -> None:
        """Takes what comes when nobody reads: nothing but the end of a reply that was whole already."""
        if self._whole and not self._complete:
            with suppress(*_BROKEN):
                self._parser.feed_data(data)
                if self._keeps and not self._parts:
                    return
        self._keeps = False
        self.close()

    def _end(self) -> None:
        if self._done is None or self._done.done():
            return
        if self._refused is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(self._refused.error())

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def _forget(self) -> None:
        """Lets go of all that belongs to one exchange."""
        self._framing = EVENTS
        self._read = _read_by_nobody
        self._splitter = None
        self._refused = None
        self._headers = _NONE


# Never written to.
_NONE: dict[bytes, bytes] = {}


def _read_by_nobody(payloads: list[bytes]) -> bool:
    return True
