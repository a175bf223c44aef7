"""How often, where and when a run whose engine failed is tried again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from types import MappingProxyType
from typing import Any

from tokenwire.dispatch.backoff import Backoff
from tokenwire.domain.errors import Code, EngineError, TokenwireError
from tokenwire.domain.request import FailoverPolicy
from tokenwire.engines.engine import Engine

# What one engine says and another one need not: its credential, its models, its endpoints, its pace.
_ITS_OWN = frozenset({"UPSTREAM_AUTH", "MODEL_NOT_FOUND", "UPSTREAM_PROTOCOL", "FIRST_TOKEN_TIMEOUT"})
# Nothing was asked of an engine that could not be reached: time alone bounds how often that is tried.
_NOT_ASKED = "ENGINE_UNREACHABLE"
# An engine that says so lives, and knows when it wants to be asked again.
OVERLOADED = frozenset({"ENGINE_OVERLOADED", "UPSTREAM_RATE_LIMITED", "ENGINE_OUT_OF_MEMORY"})
# One for all runs: an empty set takes 200 bytes, and most have one attempt.
_NOBODY: frozenset[str] = frozenset()
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# What an attempt has written at least, in events, if the failures before it are to count no more.
PROGRESS_EVENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """What happens to runs whose engine failed, where a request does not say.

    Args:
        policy: whether they are tried again.
        attempts: how many there are to get a run its next token; those that reach no engine do not count.
        seconds: how long a run goes without a new token after a failure, until no attempt begins any more; one that
            has begun has its own limits.
        backoff: the pauses before an engine that failed is tried again.
    """

    policy: FailoverPolicy = FailoverPolicy.CONTINUE
    attempts: int = 5
    seconds: float = 30.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.1, most=5.0))


class Again(Enum):
    """Whether another attempt may mend a failure."""

    NEVER = auto()
    ELSEWHERE = auto()
    ANYWHERE = auto()


def again_after(error: TokenwireError) -> Again:
    """Returns whether another attempt may mend a failure: never a refusal of the request, nor a fault of ours."""
    if not isinstance(error, EngineError) or error.code is Code.INVALID_ARGUMENT:
        return Again.NEVER
    if error.reason in _ITS_OWN and not (error.reason == "UPSTREAM_PROTOCOL" and error.retryable):
        return Again.ELSEWHERE
    return Again.ANYWHERE if error.retryable else Again.NEVER


class Tries:
    """The attempts of one run since its last new text.

    Args:
        failover: the limits.
        now: seconds that never go back.
        rng: for the pauses.

    Attributes:
        last: why the last attempt failed.
        out: engines that are not asked any more, and the field for which they cannot go on, if that is why.
        avoid: engines that failed; others go before them.
        not_before: when engines want to be asked again, in the time of `now`.
    """

    __slots__ = ("_asked", "_failover", "_failures", "_now", "_rng", "_since", "avoid", "last", "not_before", "out")

    def __init__(self, failover: Failover, now: Callable[[], float], rng: Random) -> None:
        self._failover = failover
        self._now = now
        self._rng = rng
        self._failures = 0
        self._asked = 0
        self._since = 0.0
        self.last: TokenwireError | None = None
        self.out: Mapping[str, str] = _NOTHING
        self.avoid: frozenset[str] = _NOBODY
        self.not_before: Mapping[str, float] = _NOTHING

    def progressed(self, events: int) -> None:
        """Says that the attempt that failed had written text, in so many events.

        A run whose engines fail again and again gets on all the same, without an end to it. But one whose engines die
        after a few tokens each time may be what they die of, and does not take them all with it.
        """
        self._since = self._now()
        if events < PROGRESS_EVENTS:
            return
        self._failures = 0
        self._asked = 0
        self.out = {name: field for name, field in self.out.items() if field}
        self.avoid = _NOBODY

    def failed(self, error: TokenwireError, engine: Engine) -> None:
        """Notes a failure."""
        if not self._failures:
            self._since = self._now()
        self._failures += 1
        self._asked += error.reason != _NOT_ASKED
        self.last = error
        self.avoid |= {engine.name}
        if again_after(error) is Again.ELSEWHERE:
            self.leave_out(engine)
        elif error.reason in OVERLOADED and error.retry_after:
            self.not_before = {**self.not_before, engine.name: self._now() + error.retry_after}

    def leave_out(self, engine: Engine, field: str = "") -> None:
        """Asks an engine no more; `field`: for which it cannot go on, if that is why."""
        self.out = {**self.out, engine.name: field}

    @property
    def used_up(self) -> bool:
        """Whether there is no further attempt."""
        return self._asked >= self._failover.attempts or (self._failures > 0 and self.left <= 0)

    @property
    def left(self) -> float:
        """Seconds until no attempt begins any more."""
        return self._failover.seconds - (self._now() - self._since if self._failures else 0.0)

    def pause(self, *, elsewhere: bool) -> float:
        """Returns how long to wait now; not at all for the first failure if there is another engine."""
        if not self._failures or (elsewhere and self._failures == 1):
            return 0.0
        return min(self._failover.backoff.pause(self._failures, self._rng), max(0.0, self.left))
