"""One client's connection: bytes to events of `h2`, and these to calls."""

import asyncio
import sys
import termios
from collections import OrderedDict
from collections.abc import Callable
from fcntl import ioctl
from typing import Any, ClassVar, Final, cast

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.http2.budget import Budget
from tokenwire.transport.http2.call import Http2Call
from tokenwire.transport.http2.clients import Clients
from tokenwire.transport.http2.headers import NOT_POST, read_head
from tokenwire.transport.http2.session import STREAMS_MAX, Session
from tokenwire.transport.methods import Methods
from tokenwire.transport.server import ServerOptions

# What is taken at once, so that a budget which is spent counts before all that is there has been worked through.
STEP_BYTES: Final = 512
# How many calls one turn of the loop takes in, and a step's more: h2 needs 50 us for each.
CALLS_A_TURN: Final = 4
# The window of the connection is opened again in steps of this size: what holds a client back is its stream's.
WINDOW_STEP_BYTES: Final = 32_768
# Resets of calls: as many as there can be, and then so many a second (CVE-2023-44487).
RESETS, RESETS_PER_SECOND = STREAMS_MAX, 200.0
# Pings while nothing is written, settings, and frames without content. A client may ping every half second.
IDLE_FRAMES, IDLE_FRAMES_PER_SECOND = 100, 4.0


class Connection(asyncio.Protocol):
    """One client's connection.

    Args:
        methods: what is served.
        options: of the server.
        clients: of the server; this one is in it while it is open.

    Attributes:
        paused: the socket takes no more for now.
        wrote: a part of a message has gone out since the last ping came.
        waiting: the calls that have more to write than the connection's window or the socket lets through, each in its
            turn. Those that their own window holds are not among them.
    """

    transport: asyncio.Transport

    def __init__(self, methods: Methods, options: ServerOptions, clients: Clients) -> None:
        self.loop = asyncio.get_running_loop()
        self.session = Session()
        self.paused = self.wrote = False
        self.waiting: OrderedDict[Http2Call, None] = OrderedDict()
        self.tasks = clients.tasks
        self.starts = clients.starts
        self.status_seconds = options.status_seconds
        self._methods = methods
        self._options = options
        self._clients = clients
        self._calls: dict[int, Http2Call] = {}
        self._draining = False
        self._closing = False
        self._heard = False
        self._watch: asyncio.TimerHandle | None = None
        # What the socket held at the last ping, if it was full then.
        self._held_at_ping = 0
        # What is taken in when the loop comes round again, and how many calls came in this turn.
        self._unread = b""
        self._begun = 0
        # Bytes of requests for which the connection's window has not been opened again.
        self._taken = 0
        self._resets = Budget(RESETS, RESETS_PER_SECOND, self.loop.time)
        self._idle_frames = Budget(IDLE_FRAMES, IDLE_FRAMES_PER_SECOND, self.loop.time)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets the client, or closes the connection at once if there are too many."""
        # uvloop's transports are none of asyncio's classes.
        self.transport = transport = cast("asyncio.Transport", transport)
        if len(self._clients.connections) >= self._options.connections_max:
            self._closing = True
            transport.abort()
            return
        self._clients.add(self)
        self.session.initiate_connection()
        self.flush()
        self._watch = self.loop.call_later(self._options.keepalive_seconds, self._check)

    def data_received(self, data: bytes) -> None:
        """Takes what the client sent."""
        self._heard = True
        if self._unread:
            self._unread += data
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Takes in what has come, but only so many calls in one turn of the loop: others are served meanwhile."""
        self._begun = 0
        for start in range(0, len(data), STEP_BYTES):
            if self._closing:
                return
            if self._begun >= CALLS_A_TURN:
                self._unread = data[start:]
                self.transport.pause_reading()
                self.loop.call_soon(self._read_on)
                break
            self._take(data[start : start + STEP_BYTES])
        self.flush()

    def _read_on(self) -> None:
        data, self._unread = self._unread, b""
        if self._closing:
            return
        if not self.paused:
            self.transport.resume_reading()
        self._read(data)

    def _take(self, data: bytes) -> None:
        try:
            events = self.session.take(data)
        except ProtocolError:
            # h2 has said why.
            self._end()
            return
        # Before all that new settings let through: some clients know these only when they are acknowledged.
        self.flush()
        # h2 knows of a reset before the events that came earlier are looked at: no handler may write to that stream.
        gone = {event.stream_id for event in events if type(event) is StreamReset}
        for stream_id in gone:
            self._left(stream_id)
        for event in events:
            take = self._TAKE.get(type(event))
            if take is not None and not self._closing:
                take(self, event, gone)

    def eof_received(self) -> bool:
        """Closes the connection: nobody half-closes one of HTTP/2."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Ends what is left."""
        self._closing = True
        self._clients.remove(self)
        if self._watch is not None:
            self._watch.cancel()
        self._leave()

    def pause_writing(self) -> None:
        """Holds every call, and reads no more: answers to what comes could not be sent either."""
        self.paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Goes on."""
        self.paused = False
        self._heard = True
        self.transport.resume_reading()
        self._resume()

    def flush(self) -> None:
        """Sends what h2 has to say."""
        data = self.session.data_to_send()
        if data and not self._closing:
            self.transport.write(data)

    def drop(self, stream_id: int) -> None:
        """Forgets a call that has ended."""
        self._calls.pop(stream_id, None)
        self.session.forget(stream_id)
        if self._draining and not self._calls:
            self._end()

    def drain(self) -> None:
        """Takes no more calls, and closes the connection once those that run have ended."""
        if self._closing:
            return
        self._draining = True
        self.transport.write(self.session.goaway())
        if not self._calls:
            self._end()

    def cancel(self) -> None:
        """Ends all calls now."""
        error = TokenwireError(Code.UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down", retryable=True)
        for call in list(self._calls.values()):
            call.refuse(error)
        self._end()

    def abort(self) -> None:
        """Closes the connection without waiting for what is still to be sent."""
        self.transport.abort()

    # What comes.

    def _request(self, event: RequestReceived, gone: set[int]) -> None:
        stream_id = event.stream_id
        if stream_id in gone:
            return
        if self._draining:
            # The client knows by now, or will, that it was not begun, and tries elsewhere.
            self._refuse_stream(stream_id)
            return
        head = read_head(event.headers)
        if head.http_method != b"POST":
            self.session.finish(stream_id, NOT_POST)
            self.session.forget(stream_id)
            return
        self._begun += 1
        call = self._calls[stream_id] = Http2Call(self, stream_id, head, self._methods)
        if head.too_large:
            call.refuse(TokenwireError(Code.RESOURCE_EXHAUSTED, "METADATA_TOO_LARGE", "there is too much metadata"))
        elif head.broken:
            call.refuse(TokenwireError(Code.INTERNAL, "MALFORMED_REQUEST", "the timeout cannot be read"))
        else:
            call.begin()

    def _data(self, event: DataReceived, gone: set[int]) -> None:
        size = event.flow_controlled_length or 0
        if not event.data and event.stream_ended is None:
            self._spend(self._idle_frames)
        self._taken += size
        if self._taken >= WINDOW_STEP_BYTES:
            self.session.increment_flow_control_window(self._taken)
            self._taken = 0
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.receive(event.data or b"", size)

    def _ended(self, event: StreamEnded, gone: set[int]) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.half_close()

    def _reset(self, event: StreamReset, gone: set[int]) -> None:
        self._spend(self._resets)

    def _window(self, event: WindowUpdated, gone: set[int]) -> None:
        if event.stream_id:
            call = self._calls.get(event.stream_id)
            if call is not None:
                call.resume()
        else:
            self._resume()

    def _settings(self, event: RemoteSettingsChanged, gone: set[int]) -> None:
        self._spend(self._idle_frames)
        # They may have opened every stream's window.
        for call in list(self._calls.values()):
            call.resume()

    def _ping(self, event: PingReceived, gone: set[int]) -> None:
        # Clients measure the line by a ping for each message, or nearly.
        if not self.wrote:
            self._spend(self._idle_frames)
        self.wrote = False

    def _resume(self) -> None:
        # No longer than there is room: updates may be many, and bring next to none.
        while self.waiting and not self.paused and self.session.outbound_flow_control_window > 0:
            call, _ = self.waiting.popitem(last=False)
            call.resume()

    def _left(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        self.drop(stream_id)
        if call is not None:
            call.leave()

    def _refuse_stream(self, stream_id: int) -> None:
        self.session.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
        self.session.forget(stream_id)

    def _spend(self, budget: Budget) -> None:
        if not budget.take() and not self._closing:
            self.session.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._end()

    # How it ends.

    def _end(self) -> None:
        """Ends whoever is left, and closes the connection when the client has all that was said.

        Not before it closes its side: to what it still sends, the kernel would answer with a reset, and that takes
        what is on its way with it.
        """
        if self._closing:
            return
        self.flush()
        self._closing = True
        self._leave()
        try:
            self.transport.write_eof()
            self.transport.resume_reading()
        except (OSError, NotImplementedError):
            # It has gone already, or there is no half-close: TLS has none.
            self.transport.close()
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self.loop.call_later(self._options.ping_timeout_seconds, self.transport.abort)

    def _leave(self) -> None:
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            call.leave()

    def _check(self) -> None:
        """Asks a client that has been silent whether it is there."""
        self._watch = None
        if self._closing:
            return
        if self._heard:
            self._watch = self.loop.call_later(self._options.keepalive_seconds, self._check)
        else:
            self.session.ping(bytes(8))
            self.flush()
            self._held_at_ping = self._held() if self.paused else 0
            self._watch = self.loop.call_later(self._options.ping_timeout_seconds, self._missed)
        self._heard = False

    def _missed(self) -> None:
        # The ping may be behind megabytes in the socket. Whoever takes some of these is there.
        if self.paused and self._held() < self._held_at_ping:
            self._heard = True
        if self._heard:
            self._check()
        else:
            self.transport.abort()

    def _held(self) -> int:
        """How many bytes the socket holds that the client's has not taken."""
        held = ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(held, sys.byteorder)

    _TAKE: ClassVar[dict[type[Event], Callable[["Connection", Any, set[int]], None]]] = {
        RequestReceived: _request,
        DataReceived: _data,
        StreamEnded: _ended,
        StreamReset: _reset,
        WindowUpdated: _window,
        RemoteSettingsChanged: _settings,
        PingReceived: _ping,
    }
