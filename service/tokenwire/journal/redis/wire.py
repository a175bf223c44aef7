"""One connection to the store's server."""

import asyncio
from collections import deque
from typing import Any, cast

from tokenwire.journal.redis.resp import Answers
from tokenwire.journal.redis.store import StoreError

# A process that stood still finds that an answer is late before it has looked whether it came.
LOOK_AGAIN_SECONDS = 0.01


class Wire(asyncio.Protocol):
    """Sends commands and hands out their answers, in the same order. Many may wait at the same time.

    Args:
        seconds: how long the server may be silent while it is to answer.

    Attributes:
        lost: whether nothing can be asked any more.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._gone = self._loop.create_future()
        self._transport: asyncio.Transport
        self._answers = Answers()
        # Who waits for how many answers; and those that the first has.
        self._asked: deque[tuple[asyncio.Future[list[Any]], int]] = deque()
        self._got: list[Any] = []
        # Since when it has been silent. One timer looks at it, and only every so many seconds.
        self._silent_since = 0.0
        self._looked = False
        self._timer: asyncio.TimerHandle | None = None
        self.lost = False

    def ask(self, commands: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Sends commands in one go. Returns their answers; StoreError if they cannot be had."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self._asked:
            self._silent_since, self._looked = self._loop.time(), False
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._on_time)
        self._asked.append((future, count))
        self._transport.write(commands)
        return future

    async def close(self) -> None:
        """Closes the connection; who still waits gets a StoreError."""
        self._lose("closed")
        await asyncio.wait([self._gone])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's does not call itself so.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._silent_since, self._looked = self._loop.time(), False
        try:
            answers = self._answers.feed(data)
        except ValueError:
            self._lose("no Redis")
            return
        got = self._got + answers if self._got else answers
        while self._asked and len(got) >= self._asked[0][1]:
            future, count = self._asked.popleft()
            if not future.done():
                future.set_result(got[:count])
            got = got[count:]
        self._got = got
        if got and not self._asked:
            # Who has got whose answers?
            self._lose("no Redis")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lose("the connection broke" if exc is None else type(exc).__name__)
        self._gone.set_result(None)

    def _on_time(self) -> None:
        self._timer = None
        if not self._asked:
            return
        left = self._silent_since + self._seconds - self._loop.time()
        if left <= 0 and self._looked:
            self._lose("it is silent")
            return
        self._looked = left <= 0
        self._timer = self._loop.call_later(max(left, LOOK_AGAIN_SECONDS), self._on_time)

    def _lose(self, cause: str) -> None:
        if self.lost:
            return
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        asked, self._asked = self._asked, deque()
        for future, _ in asked:
            if not future.done():
                future.set_exception(StoreError(f"the journal's server does not answer as it should ({cause})"))
