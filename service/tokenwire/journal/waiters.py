"""Those who wait for a journal to change."""

import asyncio

_SWEEP_MIN = 16


class Waiters:
    """Futures of those who wait, each of which waits again after every change.

    Waits that are broken off are swept out when the others have doubled, so that nobody has to take his own out.
    """

    __slots__ = ("_futures", "_loop", "_sweep_at")

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []
        self._sweep_at = _SWEEP_MIN
        # Kept: asking for it costs a system call on Python 3.11.
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Returns how many there are, those that were broken off since the last sweep included."""
        return len(self._futures)

    def wait(self) -> asyncio.Future[None]:
        """Returns a future that ends at the next change."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        self._futures.append(future)
        if len(self._futures) > self._sweep_at:
            self._futures = [one for one in self._futures if not one.done()]
            self._sweep_at = max(_SWEEP_MIN, 2 * len(self._futures))
        return future

    def wake(self) -> None:
        """Ends all waits."""
        if self._futures:
            futures, self._futures = self._futures, []
            for future in futures:
                if not future.done():
                    future.set_result(None)
