"""Keeps the process below a bound on calls that stay open (docs/decisions/0016)."""

import random
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import Call, Handler, Kind

TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
# Those that answer once, and only when a run has ended: they hold as much as a stream does.
WAITING = frozenset(
    {
        "/tokenwire.v1.GenerateService/Generate",
        "/tokenwire.v1.ChatService/Chat",
        "/tokenwire.v1.RunService/WaitRun",
    }
)
# Those that read a run which is there already: they may take the reserve.
RESUMING = frozenset({"/tokenwire.v1.RunService/AttachRun", "/tokenwire.v1.RunService/WaitRun"})
# Not health, nor reflection, nor what is no method at all.
_OURS = "/tokenwire."
# One place in ten more than the bound.
RESERVE = 10
# Seconds. Those who are refused at the same moment come back at different ones.
RETRY_MIN_SECONDS, RETRY_MAX_SECONDS = 0.5, 1.5


class Verdict(StrEnum):
    """What was decided for a call that counts."""

    ADMITTED = "admitted"
    # Above the bound: a resume.
    RESERVED = "reserved"
    REFUSED = "refused"


class Admission:
    """Refuses calls that would stay open beyond the bound, at once and unparsed; another replica may have room.

    Streams count, and unary calls that wait for a run. Health, reflection and calls that answer at once do not, so that
    a full process is still seen to live, and its runs can still be looked at and cancelled. A process that is full of
    new calls takes back the readers of its own runs: a tenth of the bound above it is theirs alone.

    Args:
        streams_max: how many may be open at once, the reserve not counted.
        rng: spreads the times after which the refused ones come back.
        tell: is told of each decision.

    Attributes:
        open: how many are.
    """

    def __init__(
        self, streams_max: int, *, rng: random.Random, tell: Callable[[Verdict], None] = lambda verdict: None
    ) -> None:
        self.open = 0
        self._bound = streams_max
        self._with_reserve = with_reserve(streams_max)
        self._rng = rng
        self._tell = tell

    def around(self, request: Any, call: Call, proceed: Handler) -> Awaitable[Any]:
        """Serves the call. Raises UNAVAILABLE, TOO_MANY_STREAMS beyond the bound."""
        return self._held(request, call, proceed) if counts(call) else proceed(request, call)

    async def _held(self, request: Any, call: Call, proceed: Handler) -> Any:
        bound = self._with_reserve if call.method in RESUMING else self._bound
        if self.open >= bound:
            self._tell(Verdict.REFUSED)
            raise self._refusal(bound)
        self.open += 1
        try:
            self._tell(Verdict.RESERVED if self.open > self._bound else Verdict.ADMITTED)
            return await proceed(request, call)
        finally:
            self.open -= 1

    def _refusal(self, bound: int) -> TokenwireError:
        return TokenwireError(
            Code.UNAVAILABLE,
            TOO_MANY_STREAMS,
            "the server has as many open streams as it takes; another one may have room",
            retryable=True,
            retry_after=self._rng.uniform(RETRY_MIN_SECONDS, RETRY_MAX_SECONDS),
            metadata={"limit": str(bound)},
        )


def counts(call: Call) -> bool:
    """Whether a call stays open for as long as a run does, or as its client likes."""
    return call.method.startswith(_OURS) and (call.kind is not Kind.UNARY or call.method in WAITING)


def with_reserve(streams_max: int) -> int:
    """Returns how many calls there can be if so many of them are no resumes."""
    return streams_max + -(-streams_max // RESERVE)


def without_reserve(streams: int) -> int:
    """Returns how many of so many calls may be no resumes; the inverse of `with_reserve`."""
    return streams * RESERVE // (RESERVE + 1)
