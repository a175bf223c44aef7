"""One thread for what may take long at the disk."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


class Worker:
    """Does one job after the other; the event loop goes on meanwhile."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._pending: set[asyncio.Future[None]] = set()

    async def call(self, job: Callable[[], _Result]) -> _Result:
        """Does a job and returns what it returns. It goes on if its caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def begin(self, job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Begins a job; `done` is then called on the event loop, with the OSError if there was one."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, job)
        self._pending.add(future)

        def finished(future: "asyncio.Future[None]") -> None:
            self._pending.discard(future)
            if future.cancelled():
                return
            error = future.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
            done(error)

        future.add_done_callback(finished)

    async def idle(self) -> None:
        """Waits until every job is done."""
        while self._pending:
            await asyncio.wait(self._pending)

    def close(self) -> None:
        """Waits, without the event loop, for the last job, and ends the thread."""
        self._executor.shutdown()
