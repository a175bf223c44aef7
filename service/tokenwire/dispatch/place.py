"""A run's place on an engine."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from tokenwire.dispatch.breaker import Pass
from tokenwire.engines.engine import Engine


class Place:
    """Held by one attempt, as a context; tells the engine's breaker how the attempt went.

    Attributes:
        engine: where.
        verdict: what the attempt says of the engine.
    """

    __slots__ = ("_choices", "_release", "engine", "verdict")

    def __init__(self, engine: Engine, verdict: Pass, release: Callable[[Engine, int], None], choices: int) -> None:
        self.engine = engine
        self.verdict = verdict
        self._release: Callable[[Engine, int], None] | None = release
        self._choices = choices

    def release(self) -> None:
        """Gives the place back; the second time nothing happens."""
        release, self._release = self._release, None
        if release is not None:
            self.verdict.leave()
            release(self.engine, self._choices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
