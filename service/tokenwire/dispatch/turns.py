"""One at a time for each key, in the order of their coming."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Key = tuple[str, str]


class Turns:
    """Submits of one request id wait here for the one that is being accepted. True while there are any."""

    def __init__(self) -> None:
        self._locks: dict[Key, asyncio.Lock] = {}
        self._callers: dict[Key, int] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether it is somebody's turn."""
        return key in self._locks

    def __bool__(self) -> bool:
        """Whether it is anybody's turn."""
        return bool(self._locks)

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """Waits for the turn; the block has it."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._callers[key] = self._callers.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._callers[key] -= 1
            if not self._callers[key]:
                del self._callers[key], self._locks[key]
