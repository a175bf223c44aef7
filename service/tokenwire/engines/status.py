"""Whether an engine answers, and its models."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class EngineState(IntEnum):
    """Whether an engine answers; numbers as ModelState in model.proto."""

    LOADING = 1
    READY = 2
    UNAVAILABLE = 3


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of an engine; None for what is not known.

    Attributes:
        name: the name to ask for.
        context_window: tokens of prompt and answer together.
        vocabulary: how many tokens there are; ids are below it.
    """

    name: str
    context_window: int | None = None
    vocabulary: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that an engine answers, and that wait there, whoever sent them."""

    running: int
    waiting: int


class Status:
    """An engine's state and models; tells its watchers of each change.

    Attributes:
        load: how busy it was when it was last asked; None if it does not tell.
    """

    def __init__(self, state: EngineState = EngineState.LOADING, models: tuple[ModelInfo, ...] = ()) -> None:
        self.state = state
        self.models = models
        self.load: Load | None = None
        self._changed = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []

    def model(self, name: str) -> ModelInfo:
        """Returns what is known of a model; of one that is not listed, its name alone."""
        return next((model for model in self.models if model.name == name), ModelInfo(name))

    def watch(self, watcher: Callable[[], None]) -> None:
        """Calls `watcher` after each change."""
        self._watchers.append(watcher)

    def set(self, state: EngineState, models: tuple[ModelInfo, ...] | None = None) -> None:
        """Takes a new state; `models` None keeps the models that were known."""
        known = self.models if models is None else models
        if (state, known) == (self.state, self.models):
            return
        self.state, self.models = state, known
        self._changed.set()
        self._changed = asyncio.Event()
        for watcher in self._watchers:
            watcher()

    async def changed(self) -> None:
        """Waits for the next change."""
        await self._changed.wait()
