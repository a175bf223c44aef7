"""How long to wait before the next attempt, and when there is none any more."""

import random
from collections.abc import Callable

from tokenwire_client.core.policy import Policy


class Pace:
    """Counts the attempts that brought nothing.

    Args:
        policy: how hard to try.
        clock: seconds, from any beginning.
        rng: chooses the waits.

    Attributes:
        attempt: the number of the attempt that comes next, from 1, since something new was heard.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float], rng: random.Random) -> None:
        self.attempt = 0
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._since = 0.0

    def progress(self) -> None:
        """Notes that something new was heard: the bounds begin anew."""
        self.attempt = 0

    def alive(self) -> None:
        """Notes that the server was heard, if only to say that it lives: that time is none without it."""
        self._since = self._clock()

    def wait(self, at_least: float) -> float | None:
        """Returns the seconds to wait before the next attempt, or None if there is none."""
        policy = self._policy
        now = self._clock()
        if self.attempt == 0:
            self._since = now
        if self.attempt >= policy.attempts:
            return None
        bound = min(policy.longest_wait, policy.first_wait * 2.0 ** min(self.attempt, 30))
        seconds = max(at_least, self._rng.uniform(0.0, bound))
        if now + seconds - self._since > policy.give_up_after:
            return None
        self.attempt += 1
        return seconds
