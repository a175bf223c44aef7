"""How often a client may do what costs us work and brings it nothing."""

from collections.abc import Callable


class Budget:
    """A token bucket: so many at once, and so many a second.

    Args:
        burst: how many at once.
        per_second: how fast they come back.
        now: a clock that never goes back, in seconds.
    """

    __slots__ = ("_at", "_burst", "_left", "_now", "_per_second")

    def __init__(self, burst: int, per_second: float, now: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._now = now
        self._left = float(burst)
        self._at = now()

    def take(self) -> bool:
        """Takes one, and says whether there was one."""
        now = self._now()
        self._left = min(self._left + (now - self._at) * self._per_second, self._burst) - 1
        self._at = now
        return self._left >= 0
