"""The places on all engines: which engine may be tried now, and who is let through."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from tokenwire.dispatch.breaker import Breaker, BreakerLimits
from tokenwire.dispatch.place import Place
from tokenwire.dispatch.waiting import ALL, WaitingLine
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState

_RANKS = {EngineState.READY: 0, EngineState.LOADING: 1, EngineState.UNAVAILABLE: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a run asks for its next attempt.

    Attributes:
        candidates: returns the engines that would do, as of now.
        choices: how many choices shall be written.
        goes_on: whether the run has text.
        avoid: engines that others go before.
        begins: when it may begin at the earliest, in the time of `Places`.
        not_before: when an engine may be asked at the earliest.
        patient: whether it waits for a slot, or for a model that is being loaded, as long as it takes.
        waits: is called if it has to wait.
    """

    candidates: Callable[[], Sequence[Engine]]
    choices: int = 1
    goes_on: bool = False
    avoid: frozenset[str] = frozenset()
    begins: float = -math.inf
    not_before: Mapping[str, float] = field(default_factory=dict)
    patient: bool = False
    waits: Callable[[], None] = lambda: None


class Places:
    """One breaker for each engine, its slots where it has a number of them, and the line of those who wait.

    Args:
        engines: all there are.
        now: seconds that never go back.
        rng: for the breakers.
        limits: the breakers' own.
    """

    def __init__(
        self, engines: Sequence[Engine], now: Callable[[], float], rng: Random, limits: BreakerLimits | None = None
    ) -> None:
        self.now = now
        self._running: Counter[str] = Counter()
        self._resting: dict[str, float] = {}
        self._line = WaitingLine(len(engines))
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._breakers = {engine.name: Breaker(now, rng, limits, self._line.serve) for engine in engines}
        for engine in engines:
            engine.status.watch(partial(self._look, engine))

    def close(self) -> None:
        """Gives nothing out any more by itself."""
        if self._wake is not None:
            self._wake.cancel()

    def breaker(self, engine: Engine) -> Breaker:
        """Returns an engine's breaker."""
        return self._breakers[engine.name]

    @property
    def taken(self) -> int:
        """How many choices are written now, on all engines."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """How many runs wait for a place."""
        return len(self._line)

    async def take(self, wish: Wish, seconds: float) -> Place:
        """Returns a place on an engine that is ready and lets an attempt through; waits for one.

        Raises TimeoutError after so many seconds; a patient wish waits on for an engine that is well and whose slots
        are taken, or that loads its model.
        """
        return await self._line.take(
            partial(self._place, wish),
            goes_on=wish.goes_on,
            seconds=seconds,
            patient=lambda: wish.patient and any(map(self._comes, wish.candidates())),
            waits=wish.waits,
        )

    def closed(self, engine: Engine) -> float:
        """Returns for how many seconds a new attempt would find the breaker open.

        0 also while another attempt finds out whether the engine is back: that one is waited for.
        """
        return self.breaker(engine).wait(ready=engine.status.state is EngineState.READY)

    def free(self, engine: Engine) -> bool:
        """Whether an attempt could begin there now, but for its slots."""
        ready = engine.status.state is EngineState.READY
        return ready and not self.closed(engine) and self.breaker(engine).admits

    def busy(self, engine: Engine) -> tuple[int, bool, int]:
        """Returns what sorts engines: those that are ready first, then those that did not ask for rest, least busy."""
        resting = self._resting.get(engine.name, -math.inf) > self.now()
        return _RANKS[engine.status.state], resting, self._running[engine.name]

    def running(self, engine: Engine) -> int:
        """Returns how many choices an engine writes now."""
        return self._running[engine.name]

    def rest(self, engine: Engine, seconds: float) -> None:
        """Lets others go before an engine that has said when it wants to be asked again."""
        self._resting[engine.name] = self.now() + seconds

    def _place(self, wish: Wish, kept: Counter[str]) -> Place | None:
        free: list[Engine] = []
        full: list[str] = []
        for engine in wish.candidates():
            name = engine.name
            if kept[name] >= ALL:
                continue
            begins = max(wish.not_before.get(name, -math.inf), wish.begins)
            if not self.free(engine):
                # Nobody else can have it either.
                kept[name] = ALL
                if engine.status.state is EngineState.READY:
                    self._wake_in(self.closed(engine))
            elif begins > self.now():
                self._wake_in(begins - self.now())
                if wish.goes_on and engine.slots is not None:
                    # New ones do not take its slots in its pause.
                    kept[name] += wish.choices
            elif engine.slots is not None and self._running[name] + kept[name] > max(0, engine.slots - wish.choices):
                full.append(name)
            else:
                free.append(engine)
        if not free:
            # Those that come later must not take the slots away one by one.
            kept.update(dict.fromkeys(full, ALL))
            return None
        best = min(free, key=lambda one: (one.name in wish.avoid, *self.busy(one)))
        self._running[best.name] += wish.choices
        return Place(best, self.breaker(best).enter(), self._release, wish.choices)

    def _comes(self, engine: Engine) -> bool:
        return engine.status.state is EngineState.LOADING or self.free(engine)

    def _release(self, engine: Engine, choices: int) -> None:
        self._running[engine.name] -= choices
        # Not at once: a run that goes on has to get in line first.
        asyncio.get_running_loop().call_soon(self._line.serve)

    def _look(self, engine: Engine) -> None:
        state = engine.status.state
        if state is EngineState.UNAVAILABLE:
            self.breaker(engine).trip()
        elif state is EngineState.READY:
            self.breaker(engine).ready()
        self._line.serve()

    def _wake_in(self, seconds: float) -> None:
        """Serves the line again after a time, for what changes without an event."""
        if seconds <= 0:
            return
        when = self.now() + seconds
        if self._wake is not None:
            if self._wake_at <= when:
                return
            self._wake.cancel()
        self._wake_at = when
        self._wake = asyncio.get_running_loop().call_later(seconds, self._woken)

    def _woken(self) -> None:
        # A timer may fire a little before its time: then the line asks for another one.
        self._wake = None
        self._line.serve()
