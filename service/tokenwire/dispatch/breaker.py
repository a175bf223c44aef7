"""Keeps requests away from an engine that fails, and finds out carefully whether it is back."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

from tokenwire.dispatch.backoff import Backoff


class BreakerState(Enum):
    """What a breaker lets through: everything, nothing, or one attempt at a time."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """When a breaker opens, and for how long; times in seconds.

    Args:
        before: failures before the first token, one after another, that open it.
        after: failures after the first token, within `window`, that open it.
        window: see above.
        pause: how long it stays open; doubles each time that it opens again.
        ready_max: the longest that it stays open while the engine's health says that it is well: when a fault ends,
            requests must succeed within 5 s.
    """

    before: int = 5
    after: int = 3
    window: float = 60.0
    pause: Backoff = field(default_factory=lambda: Backoff(first=1.0, most=30.0))
    ready_max: float = 4.0


class Breaker:
    """The breaker of one engine. Counts only what is the engine's own fault: its users tell it.

    Args:
        now: seconds that never go back.
        rng: shortens each pause by up to a half, so that many servers do not come back in step.
        limits: when it opens, and for how long.
        closed: is called when it lets everything through again.

    Attributes:
        openings: how often it has opened.
    """

    def __init__(
        self,
        now: Callable[[], float],
        rng: Random,
        limits: BreakerLimits | None = None,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._now = now
        self._rng = rng
        self._limits = limits or BreakerLimits()
        self._closed = closed
        self.openings = 0
        self._before = 0
        self._after: deque[float] = deque()
        # When it lets one through again; None: it is closed.
        self._until: float | None = None
        self._opened_at = 0.0
        self._opened = 0
        self._probe: Pass | None = None

    @property
    def state(self) -> BreakerState:
        """What it lets through now."""
        if self._until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._now() < self._until else BreakerState.HALF_OPEN

    @property
    def admits(self) -> bool:
        """Whether an attempt may begin now."""
        return self._until is None or (self._probe is None and self.state is BreakerState.HALF_OPEN)

    def wait(self, *, ready: bool) -> float:
        """Returns the seconds until it may let one through; `ready`: the engine's health says that it is well."""
        if self._until is None:
            return 0.0
        if ready:
            # Its health may have changed since it opened.
            self._until = min(self._until, self._opened_at + self._limits.ready_max)
        return max(0.0, self._until - self._now())

    def enter(self) -> "Pass":
        """Begins an attempt; only while it admits one."""
        assert self.admits, "nobody enters through an open breaker"
        one = Pass(self)
        if self._until is not None:
            self._probe = one
        return one

    def trip(self) -> None:
        """Opens: the engine's health says that it is down."""
        if self.state is not BreakerState.OPEN:
            self._open()

    def ready(self) -> None:
        """Lets one attempt through at once: the engine's health says that it is back."""
        if self._until is not None:
            self._until = min(self._until, self._now())

    def _answered(self, one: "Pass") -> None:
        self._before = 0
        if one is self._probe:
            self._until = None
            self._probe = None
            self._closed()

    def _finished(self) -> None:
        # What breaks again and again in the middle of answers has not recovered with a first token.
        if self._until is None:
            self._opened = 0

    def _failed(self, one: "Pass", *, after_first_token: bool, counts: bool) -> None:
        full = False
        if counts and after_first_token:
            now = self._now()
            self._after.append(now)
            while self._after[0] <= now - self._limits.window:
                self._after.popleft()
            full = len(self._after) >= self._limits.after
        elif counts:
            self._before += 1
            full = self._before >= self._limits.before
        probed = one is self._probe
        if probed:
            self._probe = None
        # Those that began before it opened say nothing new.
        if probed or (full and self._until is None):
            self._open()

    def _left(self, one: "Pass") -> None:
        if one is self._probe:
            self._probe = None

    def _open(self) -> None:
        self._opened += 1
        self.openings += 1
        self._opened_at = self._now()
        self._until = self._opened_at + self._limits.pause.ceiling(self._opened) * (1.0 - self._rng.random() / 2)
        self._before = 0
        self._probe = None


class Pass:
    """One attempt on an engine, and what it says of the engine. The first word counts, but for a failure in the middle.

    Attributes:
        answered: whether the engine has told a first token, or has refused like one that is well.
    """

    __slots__ = ("_breaker", "_done", "answered")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._done = False
        self.answered = False

    def answer(self) -> None:
        """Says that the engine answers."""
        if not self.answered and not self._done:
            self.answered = True
            self._breaker._answered(self)  # noqa: SLF001 - one thing in two parts

    def finish(self) -> None:
        """Says that the engine came to the end of an answer."""
        self.answer()
        if not self._done:
            self._done = True
            self._breaker._finished()  # noqa: SLF001

    def fail(self, *, counts: bool = True) -> None:
        """Says that the engine failed; one that does not count opens the breaker again at most, if it was to be tried.

        A run's second failure at an engine does not count: the run itself may be at fault, and others may not suffer.
        """
        if self._done:
            return
        self._done = True
        self._breaker._failed(self, after_first_token=self.answered, counts=counts)  # noqa: SLF001

    def leave(self) -> None:
        """Ends the attempt, if nothing was said of the engine: another one may find out."""
        if not self._done:
            self._done = True
            self._breaker._left(self)  # noqa: SLF001
