"""Those who wait for a journal to change."""

import asyncio

_SWEEP_MIN = 16


class Waiters:
    """Futures of those who wait, each of which waits again after every change.

    Waits that are broken off are swept out when the others have doubled, so that nobody has to take his own out.

    Attributes:
        futures: of all that wait, and of those that were broken off since the last sweep.
    """

    __slots__ = ("_loop", "_sweep_at", "futures")

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[None]] = []
        self._sweep_at = _SWEEP_MIN
        # Kept: asking for it costs a system call on Python 3.11.
        self._loop: asyncio.AbstractEventLoop | None = None

    def wait(self) -> asyncio.Future[None]:
        """Returns a future that ends at the next change."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        self.futures.append(future)
        if len(self.futures) > self._sweep_at:
            self.futures = [one for one in self.futures if not one.done()]
            self._sweep_at = max(_SWEEP_MIN, 2 * len(self.futures))
        return future

    def wake(self) -> None:
        """Ends all waits."""
        if self.futures:
            futures, self.futures = self.futures, []
            for future in futures:
                if not future.done():
                    future.set_result(None)
