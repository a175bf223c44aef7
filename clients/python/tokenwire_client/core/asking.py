"""A call with one answer, tried until there is one."""

import random
from collections.abc import Callable

from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure, overdue
from tokenwire_client.core.pace import Pace
from tokenwire_client.core.policy import Policy
from tokenwire_client.errors import BrokenError, OverdueError, RefusedError


class Asking:
    """Says when to ask again. Only for calls that may be made twice.

    Args:
        policy: how hard to try.
        clock: seconds, from any beginning.
        rng: chooses the waits.
        timeout: seconds for all of it; None: no limit.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float], rng: random.Random, timeout: float | None) -> None:
        self._wait_for_server = policy.wait_for_server
        self._pace = Pace(policy, clock, rng)
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout

    @property
    def time_left(self) -> float | None:
        """Seconds that the next call may take; None: no limit. Never 0, which grpc takes for that."""
        return None if self._deadline is None else max(self._deadline - self._clock(), 0.001)

    def failed(self, failure: Failure) -> float:
        """Returns the seconds to wait before the next call, or raises what the caller is to be told."""
        if failure.code is Code.DEADLINE_EXCEEDED and not failure.told:
            raise OverdueError(overdue())
        if not failure.passing(accepted=True):
            raise RefusedError(failure)
        tries = failure.told or self._wait_for_server
        seconds = self._pace.wait(failure.retry_after or 0.0) if tries else None
        if seconds is None:
            raise (BrokenError if failure.broken else RefusedError)(failure)
        left = self.time_left
        if left is not None and seconds >= left:
            raise OverdueError(overdue())
        return seconds
