"""An event loop without a world outside: time jumps, and every callback belongs to a process that can be stopped."""

import asyncio
import errno
import heapq
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class DiedError(BaseException):
    """Nothing of a process runs after this; not even what catches errors."""


# More turns than any schedule takes: something goes round in circles.
MAX_CALLBACKS = 200_000


class Process:
    """What is killed or frozen as a whole: a gateway, or a client. Its callbacks run in its context.

    Attributes:
        held: whether its callbacks wait: it is frozen, or dead.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = False
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)
        self.waiting: list[asyncio.Handle] = []


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """Returns the process whose callback runs now, or None."""
    return _PROCESS.get()


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in the order in which they became ready; those of several processes are mixed as the seed says.

    Attributes:
        failures: what went wrong in callbacks, and generators that nobody closed.
    """

    def __init__(self, rng: random.Random) -> None:
        self.failures: list[str] = []
        self._rng = rng
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._timer_count = 0
        self._running = False
        self._tasks: list[tuple[Process | None, asyncio.Task[Any]]] = []

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._unclosed)
        asyncio._set_running_loop(self)
        self._running = True
        self._count = 0
        try:
            task = self.create_task(main)
            while not task.done():
                self._turn()
            result: T = task.result()
            return result
        finally:
            self._running = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def thaw(self, process: Process) -> None:
        """Lets a process run again, with all that became ready meanwhile."""
        process.held = False
        self._ready.extend(process.waiting)
        process.waiting.clear()

    def tasks(self, process: Process | None) -> list[asyncio.Task[Any]]:
        """Returns the tasks of a process, or of none, that are not done."""
        self._tasks = [one for one in self._tasks if not one[1].done()]
        return [task for owner, task in self._tasks if owner is process]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        """See asyncio."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> "asyncio.Task[Any]":
        """See asyncio."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=str(name) if name else None, context=context)
        # Those of a killed process are dropped as they are.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.append((_PROCESS.get() if context is None else context.get(_PROCESS), task))
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Runs a function a moment later, here: threads would not be deterministic."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)
            except DiedError:
                future.set_exception(OSError(errno.EIO, "dead"))
                raise

        self.call_later(self._rng.choice((0.0, 0.001, 0.02)), run)
        return future

    def get_debug(self) -> bool:
        """Never."""
        return False

    def is_running(self) -> bool:
        """Whether `run` is under way."""
        return self._running

    def is_closed(self) -> bool:
        """Nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keeps what went wrong."""
        error = context.get("exception")
        if isinstance(error, DiedError):
            return
        self.failures.append(f"{context.get('message')}: {type(error).__name__ if error else ''} {error or ''}".strip())

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by asyncio; cancelled timers are left out when their time comes."""

    def _unclosed(self, generator: "AsyncGenerator[Any, Any]") -> None:
        self.failures.append(f"nobody closed a generator: {getattr(generator, '__qualname__', '')}")

    def _turn(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            assert timers, f"everything waits, and no timer is set: {self._waiting()}"
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                ready.append(handle)
        batch = list(ready)
        ready.clear()
        self._count += len(batch)
        assert self._count < MAX_CALLBACKS, "the schedule does not come to an end"
        if len(batch) > 1:
            batch = self._mixed(batch)
        for one in batch:
            if one._cancelled:
                continue
            process = one._context.get(_PROCESS)  # type: ignore[attr-defined]
            if process is not None and process.held:
                process.waiting.append(one)
            else:
                one._run()

    def _waiting(self) -> list[str]:
        return [
            f"{owner.name if owner else 'world'}: {getattr(task.get_coro(), '__qualname__', '')}"
            for owner, task in self._tasks
            if not task.done()
        ]

    def _mixed(self, batch: list[asyncio.Handle]) -> list[asyncio.Handle]:
        """Mixes the processes; each one's own order stays."""
        owners = [one._context.get(_PROCESS) for one in batch]  # type: ignore[attr-defined]
        if len(set(owners)) == 1:
            return batch
        queues: dict[Process | None, deque[asyncio.Handle]] = {}
        for owner, one in zip(owners, batch, strict=True):
            queues.setdefault(owner, deque()).append(one)
        self._rng.shuffle(owners)
        return [queues[owner].popleft() for owner in owners]
