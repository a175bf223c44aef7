"""How long to wait before something is tried again."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses that double from failure to failure, in seconds.

    Args:
        first: the longest that the first pause can be.
        most: what no pause exceeds.
    """

    first: float
    most: float

    def ceiling(self, failures: int) -> float:
        """Returns the longest that the pause after so many failures can be; at least one failure."""
        return min(self.first * 2.0 ** min(failures - 1, 60), self.most)

    def pause(self, failures: int, rng: Random) -> float:
        """Returns a pause that many who failed at once do not share: anything up to the ceiling."""
        return rng.uniform(0.0, self.ceiling(failures))
