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
    """A model of an engine; `context_window` in tokens of prompt and answer together, None if not known."""

    name: str
    context_window: int | None = None


class Status:
    """An engine's state and models; tells its watchers of each change."""

    def __init__(self, state: EngineState = EngineState.LOADING, models: tuple[ModelInfo, ...] = ()) -> None:
        self.state = state
        self.models = models
        self._changed = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []

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
