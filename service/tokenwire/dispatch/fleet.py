"""The engines of this process, and which of them answers for a model."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState

# Requests for unknown models do not make the engines busy.
ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """The engine that answers, the model's name there, and how many seconds a run may take there at most."""

    engine: Engine
    model: str
    max_duration: float | None = None


class Fleet:
    """All engines, in the order of the settings; the first model of the first engine is the default one.

    Args:
        engines: the engines.
        default_model: the model of requests that name none; empty: the first there is.
        max_durations: seconds that a run may take on an engine, by the engine's name.
    """

    def __init__(
        self, engines: Sequence[Engine], default_model: str = "", max_durations: Mapping[str, float] | None = None
    ) -> None:
        self.engines = tuple(engines)
        self._max_durations = max_durations or {}
        self._default_model = default_model
        self._running: Counter[str] = Counter()
        self._asking = asyncio.Lock()
        self._asked_at = -math.inf

    async def start(self) -> None:
        """Begins to bring every engine up."""
        for engine in self.engines:
            await engine.start()

    async def close(self) -> None:
        """Stops every engine."""
        async with AsyncExitStack() as stack:
            for engine in self.engines:
                stack.push_async_callback(engine.close)

    @property
    def default_model(self) -> str:
        """The model of requests that name none; empty while no engine has told its models."""
        return self._default_model or next(iter(self.models()), "")

    def models(self) -> dict[str, list[Engine]]:
        """Returns the engines of each model, in the order of the settings."""
        models: dict[str, list[Engine]] = {}
        for engine in self.engines:
            for model in engine.status.models:
                models.setdefault(model.name, []).append(engine)
        return models

    async def route(self, model: str, suits: Callable[[Engine], bool] = lambda engine: True) -> Route:
        """Chooses among the engines that have the model: those that suit the request, ready ones, then the least busy.

        Raises NotFoundError with the names that exist, or UNAVAILABLE if no engine has told its models.
        """
        found = self._choose(model, suits)
        if found is None:
            # An engine may have come up, or got a model, since it was last asked.
            await self._ask_all()
            found = self._choose(model, suits)
        if found is not None:
            return found
        names = list(self.models())
        if not names or (not model and self._default_model):
            raise TokenwireError(
                Code.UNAVAILABLE, "ENGINE_UNREACHABLE", "no engine can be reached", retryable=True, retry_after=1.0
            )
        raise NotFoundError("model", model, f"the model does not exist; there is {', '.join(sorted(names)[:20])}")

    @contextmanager
    def running(self, engine: Engine) -> Iterator[None]:
        """Counts a run on an engine."""
        self._running[engine.name] += 1
        try:
            yield
        finally:
            self._running[engine.name] -= 1

    async def _ask_all(self) -> None:
        """Asks every engine for its models, unless they were asked a moment ago; callers share what is under way."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() >= self._asked_at + ASK_SECONDS:
                await asyncio.gather(*(engine.check() for engine in self.engines))
                self._asked_at = loop.time()

    def _choose(self, model: str, suits: Callable[[Engine], bool]) -> Route | None:
        name = model or self.default_model
        engines = self.models().get(name)
        if not engines:
            return None
        ranks = {EngineState.READY: 0, EngineState.LOADING: 1, EngineState.UNAVAILABLE: 2}
        best = min(engines, key=lambda one: (not suits(one), ranks[one.status.state], self._running[one.name]))
        return Route(best, name, self._max_durations.get(best.name))
