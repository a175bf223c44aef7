"""The engines of this process, and which of them answers for a model."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from random import Random

from tokenwire.dispatch.agreement import Agreement
from tokenwire.dispatch.breaker import BreakerLimits
from tokenwire.dispatch.places import Places
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState, ModelInfo

# Requests for unknown models do not make the engines busy.
ASK_SECONDS = 1.0
# How long a request waits for engines that were down to say that they are back.
BACK_SECONDS = 1.0


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
        now: seconds that never go back.
        rng: for the breakers.
        limits: the breakers' own.

    Attributes:
        places: those on all engines.
        agreement: which of them read text as the same tokens.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        default_model: str = "",
        max_durations: Mapping[str, float] | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
        limits: BreakerLimits | None = None,
    ) -> None:
        self.engines = tuple(engines)
        self._max_durations = max_durations or {}
        self._default_model = default_model
        self.agreement = Agreement()
        self.places = Places(self.engines, now, rng or Random(), limits)
        self._asking = asyncio.Lock()
        self._asked_at = -math.inf
        # What the engines told of their models, and what was made of it.
        self._told: list[tuple[ModelInfo, ...]] = []
        self._models: Mapping[str, Sequence[Engine]] = {}

    async def start(self) -> None:
        """Begins to bring every engine up."""
        for engine in self.engines:
            await engine.start()

    async def close(self) -> None:
        """Stops every engine."""
        self.places.close()
        await self.agreement.close()
        async with AsyncExitStack() as stack:
            for engine in self.engines:
                stack.push_async_callback(engine.close)

    @property
    def default_model(self) -> str:
        """The model of requests that name none; empty while no engine has told its models."""
        return self._default_model or next(iter(self.models()), "")

    def models(self) -> Mapping[str, Sequence[Engine]]:
        """Returns the engines of each model, in the order of the settings."""
        told = [engine.status.models for engine in self.engines]
        if told != self._told:
            # Asked for several times a run, while it changes hardly ever.
            models: dict[str, list[Engine]] = {}
            for engine, its in zip(self.engines, told, strict=True):
                for model in its:
                    models.setdefault(model.name, []).append(engine)
            self._told, self._models = told, models
        return self._models

    def engine(self, name: str) -> Engine | None:
        """Returns the engine of a name, if there is one."""
        return next((engine for engine in self.engines if engine.name == name), None)

    async def route(self, model: str, suits: Callable[[Engine], bool] = lambda engine: True) -> Route:
        """Chooses among the engines that have the model: those that suit the request, ready ones, then the least busy.

        Raises NotFoundError with the names that exist; UNAVAILABLE if no engine has told its models, if those of the
        model are down, or if they are not to be tried for now.
        """
        found = self._choose(model, suits)
        if found is None:
            # An engine may have come up, or got a model, since it was last asked.
            await self._ask_all()
            found = self._choose(model, suits)
        elif found.engine.status.state is EngineState.UNAVAILABLE:
            # It may be back; an engine that does not say so at once is not waited for.
            with suppress(TimeoutError):
                async with asyncio.timeout(BACK_SECONDS):
                    await self._ask_all()
            found = self._choose(model, suits)
        if found is not None:
            if suits(found.engine):
                self._refuse_closed(found.engine)
            return found
        names = list(self.models())
        if not names or (not model and self._default_model):
            raise _unreachable()
        raise NotFoundError("model", model, f"the model does not exist; there is {', '.join(sorted(names)[:20])}")

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
        best = min(engines, key=lambda one: (not suits(one), self.places.closed(one) > 0, *self.places.busy(one)))
        return Route(best, name, self._max_durations.get(best.name))

    def _refuse_closed(self, engine: Engine) -> None:
        state = engine.status.state
        if state is EngineState.UNAVAILABLE:
            raise _unreachable()
        closed = self.places.closed(engine)
        if state is EngineState.READY and closed:
            raise TokenwireError(
                Code.UNAVAILABLE,
                "BREAKER_OPEN",
                "the engine has failed again and again and is left alone for a moment",
                retryable=True,
                retry_after=closed,
            )


def _unreachable() -> TokenwireError:
    return TokenwireError(
        Code.UNAVAILABLE, "ENGINE_UNREACHABLE", "no engine can be reached", retryable=True, retry_after=1.0
    )
