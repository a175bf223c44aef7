"""Why a sample does not count."""

from collections.abc import Mapping

from bench.tally import Tally

# Above it the load programs, not the gateway, may set the pace.
LOAD_CORES_MAX = 0.85
# In less time a program's share says nothing.
_SHARE_SECONDS_MIN = 0.5


class VoidError(Exception):
    """What was measured does not count.

    Args:
        reason: for the reader of the results.
        values: what was measured all the same.

    Attributes:
        said: the last that the gateway has written to standard error, if it did not start.
    """

    def __init__(self, reason: str, values: Mapping[str, float] | None = None) -> None:
        super().__init__(reason)
        self.values = dict(values or {})
        self.said = ""


def failures(tally: Tally) -> str:
    """Returns how many calls failed, and of what; empty if none did."""
    if not tally.failed:
        return ""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(tally.calls_failed.items()))
    return f"{tally.failed} of {tally.streams} calls failed" + (f" ({reasons})" if reasons else "")


def miscounted(tally: Tally) -> str:
    """Returns what the client missed: calls that failed, tokens too few or too many; empty if nothing."""
    if told := failures(tally):
        return told
    if tally.done != tally.streams:
        return f"{tally.done} of {tally.streams} calls ended"
    if tally.tokens != tally.expected:
        return f"{tally.tokens} tokens came of {tally.expected}"
    return ""


def too_busy(*, client_seconds: float, engine_seconds: float, wall_seconds: float) -> str:
    """Returns which load program used more of a core than lets it keep the pace; empty if none did.

    Args:
        client_seconds: CPU time of the busiest client.
        engine_seconds: CPU time of the engine.
        wall_seconds: in which they used it.
    """
    if wall_seconds < _SHARE_SECONDS_MIN:
        return ""
    for name, seconds in (("client", client_seconds), ("engine", engine_seconds)):
        if seconds > LOAD_CORES_MAX * wall_seconds:
            return f"the load {name} used {seconds / wall_seconds:.0%} of a core"
    return ""
