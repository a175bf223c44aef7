"""What was read from an engine and waits for its reader."""

import asyncio


class Inbox:
    """Holds the payloads of reads until somebody takes them, for a reader that has to wait in between."""

    __slots__ = ("_reads", "_waiter")

    def __init__(self) -> None:
        self._reads: list[list[bytes]] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._reads

    def put(self, payloads: list[bytes]) -> int:
        """Adds what one read brought and returns how many reads there are."""
        self._reads.append(payloads)
        self.wake()
        return len(self._reads)

    def wake(self) -> None:
        """Wakes who waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[list[bytes]]:
        """Returns what there is."""
        reads, self._reads = self._reads, []
        return reads

    async def wait(self) -> None:
        """Waits until there is something, or somebody wakes it."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
