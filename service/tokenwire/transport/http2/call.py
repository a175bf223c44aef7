"""One RPC on our own HTTP/2, as handlers see it, and as its connection does."""

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from h2.errors import ErrorCodes

from tokenwire.domain.context import RequestContext
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.request import Delivery
from tokenwire.transport.call import ClientGoneError, Kind
from tokenwire.transport.driving import Done
from tokenwire.transport.http2.headers import LATE, OK, RESPONSE, Head, trailers
from tokenwire.transport.http2.incoming import PREFIX_BYTES, Incoming
from tokenwire.transport.http2.requests import RELEASE_BYTES, Http2Requests
from tokenwire.transport.methods import Method, Methods

if TYPE_CHECKING:
    from tokenwire.transport.http2.connection import Connection

# How long the first of many requests is waited for before the handler begins without it.
SILENCE_SECONDS: Final = 0.02

Trailers: TypeAlias = tuple[tuple[bytes, bytes], ...]

# The header of a DATA frame (its length in two parts, type, flags, stream) and a message's prefix (not compressed, its
# length); and the header alone.
_MESSAGE: Final = struct.Struct(">HBBBIBI").pack
_FRAME: Final = struct.Struct(">HBBBI").pack
_PREFIX: Final = struct.Struct(">BI").pack


class Http2Call:
    """One RPC. Its handler writes to it; its connection tells it what the client does.

    A message that fits is one frame and one write to the socket, and h2 is not asked: its windows are counted down
    here (docs/decisions/0018). One that does not fit waits here, as does whoever wrote it; nothing else is held back.
    """

    __slots__ = (
        "_backlog",
        "_begun",
        "_connection",
        "_deadline",
        "_done",
        "_encode",
        "_free",
        "_gone",
        "_half_closed",
        "_headers_sent",
        "_id",
        "_incoming",
        "_method",
        "_methods",
        "_requests",
        "_session",
        "_task",
        "_timer",
        "_trailers",
        "_transport",
        "_unreleased",
        "_waiter",
        "_window",
        "context",
        "delivery",
        "kind",
        "messages",
        "metadata",
        "method",
        "parse",
    )

    def __init__(self, connection: "Connection", stream_id: int, head: Head, methods: Methods) -> None:
        method = methods.find(head.path)
        self.method = method.name
        self.kind: Kind = method.kind
        self.parse: Callable[[bytes], Any] = method.parse
        self.context: RequestContext = methods.new_context()
        self.delivery = Delivery()
        self.messages = 0
        self.metadata: Mapping[str, str] = head.metadata
        self._method: Method = method
        self._methods = methods
        self._encode = methods.encode
        self._connection = connection
        self._transport = connection.transport
        self._session = connection.session
        self._window = connection.session.stream(stream_id)
        self._id = stream_id
        # What the next message is made of, until there will be no more.
        self._incoming: Incoming | None = Incoming(methods.message_max_bytes, head.encoding)
        self._requests = Http2Requests(self._incoming, self._release) if method.requests_streamed else None
        self._begun = False
        self._unreleased = 0
        self._half_closed = False
        self._task: asyncio.Future[Any] | None = None
        # Whether a message may go out at once: the headers have, nothing waits, and the client is there.
        self._free = False
        self._headers_sent = False
        self._gone = False
        # What waits for the window, who waits for that, and how the call ends after it.
        self._backlog = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._done: Done | None = None
        self._trailers: Trailers | None = None
        # To the deadline; after the end of the handler, until its status is given up.
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        if head.timeout is not None:
            self._deadline = connection.loop.time() + head.timeout
            self._timer = connection.loop.call_at(self._deadline, self._late)

    @property
    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline, or None."""
        return None if self._deadline is None else self._deadline - self._connection.loop.time()

    async def write(self, message: object) -> None:
        """Sends one message."""
        if not self._send(self._encode(message)):
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self.messages += 1

    def begin_write(self, message: object, done: Done) -> None:
        """Begins to send one message."""
        data = self._encode(message)
        try:
            sent = self._send(data)
        except ClientGoneError as error:
            done(error)
            return
        if sent:
            self.messages += 1
            done(None)
        else:
            self._done = done

    def _send(self, data: bytes) -> bool:
        """Sends a message, and returns whether all of it has gone. Raises ClientGoneError."""
        size = len(data) + PREFIX_BYTES
        connection, session, window = self._connection, self._session, self._window
        if (
            self._free
            and not connection.paused
            and size <= window.outbound_flow_control_window
            and size <= session.outbound_flow_control_window
            and size <= session.max_outbound_frame_size
        ):
            window.outbound_flow_control_window -= size
            session.outbound_flow_control_window -= size
            connection.wrote = True
            self._transport.write(_MESSAGE(size >> 8, size & 0xFF, 0, 0, self._id, 0, size - PREFIX_BYTES) + data)
            return True
        return self._queue(data)

    def _queue(self, data: bytes) -> bool:
        if self._gone:
            raise ClientGoneError
        if not self._headers_sent:
            # By themselves: behind a first message that is stuck no status could follow.
            self._headers_sent = True
            self._session.send_headers(self._id, RESPONSE)
            self._connection.flush()
        self._backlog += _PREFIX(0, len(data)) + data
        self._free = False
        self._drain()
        return not self._backlog

    def _drain(self) -> None:
        """Sends what the windows let through."""
        session, window, backlog = self._session, self._window, self._backlog
        while backlog and not self._connection.paused:
            size = min(
                len(backlog),
                window.outbound_flow_control_window,
                session.outbound_flow_control_window,
                session.max_outbound_frame_size,
            )
            if size <= 0:
                break
            window.outbound_flow_control_window -= size
            session.outbound_flow_control_window -= size
            self._connection.wrote = True
            self._transport.write(_FRAME(size >> 8, size & 0xFF, 0, 0, self._id) + backlog[:size])
            del backlog[:size]
        if not backlog:
            self._connection.waiting.pop(self, None)
            self._free = True
        elif window.outbound_flow_control_window > 0:
            self._connection.waiting[self] = None

    # What its connection tells it.

    def begin(self) -> None:
        """Lets the handler begin soon, if it need not wait for a request.

        Not at once: a client that is refused while it writes its first request takes the failure of that write for its
        status (grpc.aio 1.85).
        """
        if self._requests is not None:
            self._connection.loop.call_later(SILENCE_SECONDS, self._start, self._requests)

    def receive(self, data: bytes, window_bytes: int) -> None:
        """Takes what came, and the room that it had in the stream's window."""
        incoming = self._incoming
        if incoming is None:
            # The first request is the one that counts, and whoever sends more is held back.
            return
        try:
            if self._requests is not None:
                self._requests.put(data, window_bytes)
                self._start(self._requests)
                return
            messages = incoming.take(data)
        except TokenwireError as error:
            self.refuse(error)
            return
        if messages:
            self._incoming = None
            self._start(messages[0])
            return
        self._unreleased += window_bytes
        if self._unreleased >= RELEASE_BYTES:
            self._release(self._unreleased)
            self._unreleased = 0

    def half_close(self) -> None:
        """Notes that the client sends no more."""
        self._half_closed = True
        if self._requests is not None:
            whole = self._requests.end()
            self._start(self._requests)
        else:
            whole = self._incoming is None
        if not whole:
            self.refuse(TokenwireError(Code.INTERNAL, "MALFORMED_REQUEST", "the request is cut short"))

    def resume(self) -> None:
        """Goes on writing, if something waits: a window has opened, or the socket takes more."""
        if not self._backlog:
            return
        self._drain()
        if self._backlog:
            return
        if self._trailers is not None:
            self._free = False
            self._end(self._trailers)
            return
        done, self._done = self._done, None
        if done is not None:
            self.messages += 1
            done(None)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """Ends the call whose client has left: its handler is cancelled, and told at its next write."""
        if self._gone:
            return
        self._close()
        done, self._done = self._done, None
        if done is not None:
            done(ClientGoneError())
        if self._requests is not None:
            self._requests.end()
        if self._task is not None:
            self._task.cancel()
        if self._waiter is not None and not self._waiter.done():
            # Of another task than the handler's.
            self._waiter.set_exception(ClientGoneError())

    def refuse(self, error: TokenwireError) -> None:
        """Ends the call with a status, whatever its handler does."""
        self._cut(trailers(self._methods.status(error, self.context.rpc_id)))

    # How it ends.

    def _start(self, request: object) -> None:
        """Lets the handler begin, once."""
        if self._begun:
            return
        self._begun = True
        self._connection.starts.add(self, request)

    def run(self, request: object) -> None:
        """Runs the handler, if the client is still there."""
        if self._gone:
            return
        task: asyncio.Future[Any] = asyncio.ensure_future(self._method.handler(request, self))
        self._task = task
        self._connection.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._task = None
        # What the client sends while its answer waits makes no difference any more.
        self._requests = self._incoming = None
        self._connection.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if self._gone:
            return
        if task.cancelled() or isinstance(error, ClientGoneError):
            self._give_up()
        elif error is None:
            answer = task.result()
            if answer is not None:
                self._queue(answer)
            self._finish(OK)
        elif isinstance(error, TokenwireError):
            self._finish(trailers(self._methods.status(error, self.context.rpc_id)))
        else:
            # A bug: the layers let nothing else through.
            self._give_up()
            raise error

    def _finish(self, ending: Trailers) -> None:
        if not self._backlog:
            self._end(ending)
            return
        self._trailers = ending
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._connection.loop.call_later(self._connection.status_seconds, self._give_up)

    def _end(self, ending: Trailers) -> None:
        self._answer(ending)
        self._connection.drop(self._id)
        self._close()

    def _answer(self, ending: Trailers) -> None:
        self._session.finish(self._id, ending if self._headers_sent else RESPONSE + ending)
        self._connection.flush()

    def _give_up(self) -> None:
        self._reset()
        self._connection.drop(self._id)
        self._close()

    def _reset(self) -> None:
        self._session.reset_stream(self._id, ErrorCodes.CANCEL)
        self._connection.flush()

    def _late(self) -> None:
        self._timer = None
        # Bare, as clients make it themselves: which of the two clocks is first makes no difference to them.
        self._cut(LATE)

    def _cut(self, ending: Trailers) -> None:
        """Ends the call now; without its status, if that would have to wait."""
        if self._gone:
            return
        if self._backlog:
            self._reset()
        else:
            self._answer(ending)
        self._connection.drop(self._id)
        self.leave()

    def _close(self) -> None:
        self._gone = True
        self._free = False
        self._backlog.clear()
        self._incoming = None
        self._connection.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self, size: int) -> None:
        if not self._half_closed and not self._gone:
            self._session.increment_flow_control_window(size, self._id)
            self._connection.flush()
