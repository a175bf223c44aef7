"""More and more streams, until a gateway cannot keep up."""

from bench.burst import Burst, burst
from bench.figures import latencies
from bench.gateway import Gateway
from bench.measures.paced import MORE_SECONDS, PATIENCE
from bench.scenarios import Scenario
from bench.site import Site
from bench.void import VoidError

# A gateway that lets half of all tokens wait longer than this does not keep up, nor does one that delivers less of what
# it is given; in the second or two of a step, a gateway just above its limit shows one or the other.
ADDED_P50_US_MAX = 100_000
DELIVERED_MIN = 0.9
# Of a core, for each process: what is near enough to one, and what is more than one.
CORES_ENOUGH = 0.95
CORES_MAX = 1.05
STREAMS_MAX = 1000
_STEPS_MAX = 12
# Between a number that it carries and one that it does not.
_NEAR = 1.1


def saturation(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Looks for the highest rate that a gateway keeps up with while each of its processes uses a core at most.

    The cost of the calls is taken off, as if streams were longer than a step.

    Raises:
        VoidError: if the load programs, or the streams that are tried, had no more to give.
    """
    tokens = max(2, round(scenario.rate * seconds))
    patience = seconds * PATIENCE + MORE_SECONDS
    calls = burst(site, gateway, streams=scenario.streams, tokens=1, seconds_max=patience)
    best: Burst | None = None
    carried, streams = 0, scenario.streams
    too_many: int | None = None
    bound = ""
    for _ in range(_STEPS_MAX):
        step = burst(site, gateway, streams=streams, tokens=tokens, seconds_max=patience)
        used = cores(step, calls) / len(gateway.doors)
        if step.void:
            bound = f"not saturated: {step.void}"
            break
        if used <= CORES_MAX and keeps_up(step, streams * scenario.rate):
            best, carried = step, streams
            if used >= CORES_ENOUGH:
                break
            if streams >= STREAMS_MAX:
                bound = f"not saturated: it carries {streams} streams"
                break
        else:
            too_many = streams
        if too_many is not None and (too_many <= carried * _NEAR or too_many <= len(gateway.doors)):
            break
        streams = next_streams(streams, used) if too_many is None else (carried + too_many) // 2
    if best is None:
        raise VoidError(bound or f"{too_many} streams are too many already")
    values = {
        **latencies(best),
        "cpu_us_per_token": _tokens_seconds(best, calls) / best.tally.tokens * 1e6,
        "streams": best.tally.streams,
        "gateway_cores": cores(best, calls),
    }
    if bound:
        raise VoidError(bound, values)
    return values


def keeps_up(step: Burst, offered: float) -> bool:
    """Tells whether a gateway has delivered what it was given, in tokens per second, and in time."""
    tally = step.tally
    return tally.added_p50_us <= ADDED_P50_US_MAX and tally.tokens_per_second >= DELIVERED_MIN * offered


def cores(step: Burst, calls: Burst) -> float:
    """Returns how many cores a gateway has used for tokens.

    Args:
        step: what it has carried.
        calls: calls alone, however many.
    """
    return _tokens_seconds(step, calls) / step.tally.wall_seconds


def next_streams(streams: int, used: float) -> int:
    """Returns the next number of streams: near the end if the cost of a token stays as it is, and never a leap.

    Args:
        streams: the number of the last step.
        used: of a core by each process in that step.
    """
    near = 0.95 * streams / max(used, 0.01)
    return min(STREAMS_MAX, round(min(max(near, 1.2 * streams), 2 * streams)))


def _tokens_seconds(step: Burst, calls: Burst) -> float:
    a_call = calls.gateway_seconds / calls.tally.streams
    return max(step.gateway_seconds - a_call * step.tally.streams, 0.0)
