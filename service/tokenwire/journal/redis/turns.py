"""One at a time for each name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Locks by name, as long as somebody holds or wants them."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Waits for the name's turn, and holds it while the block runs."""
        lock, wanted = self._locks.setdefault(name, (asyncio.Lock(), []))
        wanted.append(None)
        try:
            async with lock:
                yield
        finally:
            wanted.pop()
            if not wanted:
                del self._locks[name]
