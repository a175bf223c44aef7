"""A network between clients and gateways: calls that are delayed, cut at any message, or go silent."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from simulation.loop import Process
from tokenwire.domain.context import RequestContext
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.request import Delivery
from tokenwire.rpc.events import encode
from tokenwire.rpc.status import encode_error
from tokenwire.transport.call import ClientGoneError, Kind
from tokenwire.transport.driving import Done, drive
from tokenwire_client.core import details
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure

# A peer that says nothing is pinged; so long later it is known to be gone.
KEEPALIVE_SECONDS = 30.0
_BROKEN = Failure(code=Code.UNAVAILABLE, message="the connection broke")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a call will meet.

    Args:
        kind: what breaks it: lost (the request never arrives), cut (the client notices first), dropped (the server
            notices first), black hole (nobody notices for long); empty: nothing.
        after: messages that the client gets before that.
        latency: seconds that a message takes at most.
        window: messages that the server may send before the client reads them.
        noticed: seconds until the other side notices.
    """

    kind: str = ""
    after: int = 0
    latency: float = 0.0
    window: int = 64
    noticed: float = 0.0


FAIR = Weather()


class Line:
    """One call, seen from its client. The server's side is a `Call`.

    Args:
        rng: decides the delays.
        weather: what it will meet.
        note: is told of faults as they happen.
    """

    def __init__(self, rng: random.Random, weather: Weather, note: Callable[..., None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._rng = rng
        self._note = note
        self.weather = weather
        self.status: Failure | None = None
        self.over = False
        self.arrived = 0
        self._inbox: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._arrival = 0.0
        # The client's side of it is deaf, or the server's side is.
        self._deaf = False
        self.gone = False
        self._under_way = 0
        self._room: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.server: Process | None = None
        self._here: Context | None = None
        self.answer: bytes | None = None

    async def read(self) -> bytes | None:
        """Returns the next message, or None after the last one; `status` then says how it ended, None: OK."""
        while not self._inbox:
            if self.over:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        data = self._inbox.popleft()
        self._under_way -= 1
        if self._room is not None and not self._room.done() and self._under_way < self.weather.window:
            self._room.set_result(None)
        return data

    def leave(self, why: Failure = _BROKEN) -> None:
        """The client drops the call; the server hears of it a little later."""
        self._end(why)
        self._server_notices(self._rng.choice((0.0, 0.02)))

    def refuse(self) -> None:
        """Nobody listens."""
        self._end(_BROKEN)

    async def send(self, message: object) -> None:
        """Takes a message of the server; waits while the window is full."""
        if self.gone:
            raise ClientGoneError
        self.post(self._deliver, encode(message))
        self._under_way += 1
        if self._under_way >= self.weather.window:
            self._room = self._loop.create_future()
            await self._room

    def post(self, deliver: Callable[..., None], *args: Any) -> None:
        """Brings something of the server to the client, in its turn."""
        latency = self.weather.latency
        delay = self._rng.random() * latency if latency and self._rng.random() < 0.5 else 0.0
        self._arrival = max(self._arrival, self._loop.time() + delay)
        self._loop.call_at(self._arrival, deliver, *args, context=self._here)

    def serve(self, process: Process, handle: Callable[["ServerCall"], Any], call: "ServerCall") -> None:
        """Brings the request to a gateway."""
        self._here = Context()
        self.server = process
        if self.weather.kind == "lost":
            self._break()
            return
        if self.weather.kind and not self.weather.after:
            # The request arrives, and nothing of the answer.
            self._loop.call_later(self._rng.choice((0.0, 0.01, 0.3)), self._break, context=self._here)
        delay = self._rng.random() * self.weather.latency
        self._loop.call_later(delay, self._begin, handle, call, context=process.context)

    def reset(self) -> None:
        """The server's machine, or process, is no more: what is under way may arrive or not."""
        self.gone = True
        if self._rng.random() < 0.5:
            self._deaf = True
        self._loop.call_later(self._rng.choice((0.0, 0.05)), self._end, _BROKEN, context=self._here)

    def _begin(self, handle: Callable[["ServerCall"], Any], call: "ServerCall") -> None:
        if not self.gone:
            self.task = self._loop.create_task(self._serve(handle, call))

    async def _serve(self, handle: Callable[["ServerCall"], Any], call: "ServerCall") -> None:
        try:
            answer = await handle(call)
            if answer is not None:
                self.answer = encode(answer)
            self.post(self._finish, None)
        except TokenwireError as error:
            told = details.read(Code(error.code), error.message, encode_error(error, call.context.rpc_id))
            self.post(self._finish, told)
        except ClientGoneError:
            pass

    def _deliver(self, data: bytes) -> None:
        if self.over or self._deaf:
            return
        self._inbox.append(data)
        self.arrived += 1
        self._wake()
        if self.weather.kind and self.arrived == self.weather.after:
            self._break()

    def _finish(self, status: Failure | None) -> None:
        if not self._deaf:
            self._end(status)

    def _break(self) -> None:
        if self.over or self._deaf:
            return
        kind = self.weather.kind
        self._note(f"a call breaks after {self.arrived}: {kind}", f"call {kind}")
        match kind:
            case "lost":
                self.gone = self._deaf = True
                self._loop.call_later(self.weather.noticed, self._end, _BROKEN, context=self._here)
            case "cut":
                self._end(_BROKEN)
                self._server_notices(self.weather.noticed)
            case "dropped":
                self._deaf = True
                self._server_notices(0.0)
                self._loop.call_later(self.weather.noticed, self._end, _BROKEN, context=self._here)
            case "black hole":
                self._deaf = True
                self._server_notices(KEEPALIVE_SECONDS)

    def _server_notices(self, seconds: float) -> None:
        def cancel() -> None:
            self.gone = True
            if self.task is not None:
                self.task.cancel()

        if self.server is not None:
            self._loop.call_later(seconds, cancel, context=self.server.context)

    def _end(self, status: Failure | None) -> None:
        if not self.over:
            self.over, self.status = True, status
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class ServerCall:
    """A call, as a gateway's handler has it (transport/call.py)."""

    def __init__(
        self, line: Line, method: str, kind: Kind, parse: Callable[[bytes], Any], context: RequestContext
    ) -> None:
        self.method = method
        self.kind = kind
        self.context = context
        self.delivery = Delivery()
        self.messages = 0
        self.parse = parse
        self._line = line

    @property
    def metadata(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def time_remaining(self) -> float | None:
        """No deadline."""
        return None

    async def write(self, message: object) -> None:
        """Sends a message."""
        await self._line.send(message)
        self.messages += 1

    def begin_write(self, message: object, done: Done) -> None:
        """Sends a message without a task."""
        drive(self.write(message), done)
