"""What limiters and admission decide, counted at the price of an addition, and told when somebody looks."""

from collections import Counter
from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from tokenwire.telemetry import names


class Decisions:
    """Counts decisions; each call makes one, so an instrument of its own kind would cost more than the decision.

    Args:
        meter: makes the counter.
    """

    def __init__(self, meter: Meter) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        meter.create_observable_counter(
            names.DECISIONS, [self._look], "{decision}", "What limiters and admission let through or refused."
        )

    def tell(self, limiter: str, decision: str) -> None:
        """Counts one. Both words are of a small number, and none of a client's."""
        self._counts[limiter, decision] += 1

    def _look(self, _: CallbackOptions) -> Iterable[Observation]:
        for (limiter, decision), count in list(self._counts.items()):
            yield Observation(count, {names.LIMITER: limiter, names.DECISION: decision})
