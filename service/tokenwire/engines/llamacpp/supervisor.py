"""Keeps one child alive: starts it, and starts it again whenever it dies."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

import structlog

from tokenwire.domain.errors import EngineError
from tokenwire.engines.llamacpp.model import ModelError
from tokenwire.engines.llamacpp.process import Ready, StartError
from tokenwire.engines.status import EngineState, ModelInfo, Status

# A child that lived as long as this was well: its death is the first of its kind again.
STABLE_SECONDS = 30.0

_log = structlog.get_logger()


class Life(Protocol):
    """A child that answers."""

    @property
    def ready(self) -> Ready:
        """What it told once it answered."""
        ...

    async def wait(self) -> int:
        """Waits for its death; returns the exit code."""
        ...

    async def stop(self) -> None:
        """Ends it, if it still lives."""
        ...


class Supervisor:
    """Restarts a child, with pauses that double from failure to failure.

    Args:
        launch: brings up one child; raises StartError or ModelError if it does not come up.
        greet: called with each child that came up, before anybody is told; returns its models.
        status: told of everything.
        pause_min: seconds before the first restart, at most.
        pause_max: seconds that no pause exceeds.
        rng: shortens each pause by up to a half, so that many servers do not restart in step.
        monotonic: seconds that never go back.
        sleep: waits for a pause.
    """

    def __init__(
        self,
        *,
        launch: Callable[[], Awaitable[Life]],
        greet: Callable[[Ready], Awaitable[tuple[ModelInfo, ...]]],
        status: Status,
        pause_min: float,
        pause_max: float,
        rng: Random,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._launch = launch
        self._greet = greet
        self._status = status
        self._pause_min = pause_min
        self._pause_max = pause_max
        self._rng = rng
        self._monotonic = monotonic
        self._sleep = sleep
        self._failures = 0
        self._next_start = 0.0
        self._task: asyncio.Task[None] | None = None
        self._up = False

    @property
    def up(self) -> bool:
        """Whether there is a child that answers, as far as is known."""
        return self._up

    @property
    def retry_after(self) -> float:
        """Seconds after which a caller may try again while the child is down."""
        return max(0.0, self._next_start - self._monotonic()) + 1.0

    async def start(self) -> None:
        """Begins to bring the child up, without waiting for it."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="llamacpp supervisor")

    async def close(self) -> None:
        """Ends the child and the restarts."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self._status.set(EngineState.UNAVAILABLE)

    async def _run(self) -> None:
        answered = True
        while True:
            # A child that never came up has no end of "loading" in sight.
            if answered:
                self._status.set(EngineState.LOADING)
            answered = await self._live()
            self._status.set(EngineState.UNAVAILABLE)
            pause = min(self._pause_min * 2.0 ** min(self._failures, 60), self._pause_max)
            pause *= 1.0 - self._rng.random() / 2
            self._failures += 1
            self._next_start = self._monotonic() + pause
            await self._sleep(pause)

    async def _live(self) -> bool:
        """Brings one child up and waits for its death; returns whether it ever answered."""
        life: Life | None = None
        answered_at: float | None = None
        try:
            life = await self._launch()
            models = await self._greet(life.ready)
            answered_at = self._monotonic()
            self._up = True
            self._status.set(EngineState.READY, models)
            code = await life.wait()
            if self._monotonic() - answered_at >= STABLE_SECONDS:
                self._failures = 0
            _log.warning("the embedded engine died and is restarted", exit_code=code)
        except (StartError, ModelError, EngineError) as error:
            _log.error("the embedded engine did not start", reason=str(error), failures=self._failures + 1)
        except Exception:
            # A bug must not leave the service without its engine for ever.
            _log.exception("the embedded engine did not start")
        finally:
            self._up = False
            if life is not None:
                await life.stop()
        return answered_at is not None
