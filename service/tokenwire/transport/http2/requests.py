"""The requests of one call that has a stream of them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from tokenwire.transport.http2.incoming import Incoming

# The window is opened again in steps of this size, which is a frame's.
RELEASE_BYTES = 16_384


class Http2Requests:
    """The requests of one call, as bytes.

    Args:
        incoming: makes messages of bytes.
        release: opens the stream's window by so many bytes.
    """

    __slots__ = ("_incoming", "_over", "_queue", "_release", "_unreleased", "_waiter")

    def __init__(self, incoming: Incoming, release: Callable[[int], None]) -> None:
        self._incoming = incoming
        self._release = release
        self._queue: deque[bytes] = deque()
        self._unreleased = 0
        self._over = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, data: bytes, window_bytes: int) -> None:
        """Takes what has come, and the room that it had in the window. Raises what `Incoming.take` raises."""
        self._queue += self._incoming.take(data)
        self._unreleased += window_bytes
        # A message may be larger than the window.
        self._open_window()
        if self._queue:
            self._wake()

    def end(self) -> bool:
        """Notes that no more will come. Returns whether the last message is whole."""
        self._over = True
        self._wake()
        return not self._incoming.cut

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> bytes:
        """Takes the next request."""
        while not self._queue:
            if self._over:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        request = self._queue.popleft()
        self._open_window()
        return request

    def _open_window(self) -> None:
        if not self._queue and not self._over and self._unreleased >= RELEASE_BYTES:
            released, self._unreleased = self._unreleased, 0
            self._release(released)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
