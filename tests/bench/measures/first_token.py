"""Calls whose engine answers at once: how long the first token takes."""

import time
from statistics import median

from bench.burst import Burst, burst
from bench.gateway import Gateway
from bench.scenarios import Scenario
from bench.site import Site

_PATIENCE_SECONDS = 60
# Of few calls at a time, more are made one after the other.
_CALLS_MIN = 30


def first_token(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Measures calls with one token, the scenario's number at a time, again and again for so many seconds.

    The figures are medians of the repetitions'. Raises VoidError if it does not count.
    """
    made: list[Burst] = []
    until = time.monotonic() + seconds
    while not made or time.monotonic() < until or len(made) * scenario.streams < _CALLS_MIN:
        made.append(
            burst(site, gateway, streams=scenario.streams, tokens=1, seconds_max=_PATIENCE_SECONDS, settled=False)
        )
    return {
        "ttft_p50_us": median(one.tally.ttft_p50_us for one in made),
        "ttft_p99_us": median(one.tally.ttft_p99_us for one in made),
    }
