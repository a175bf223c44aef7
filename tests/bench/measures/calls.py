"""Calls with one token: what a call costs."""

import time

from bench.burst import Burst, burst
from bench.gateway import Gateway
from bench.scenarios import Scenario
from bench.site import Site

_PATIENCE_SECONDS = 60


def calls(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Measures calls, many at the same time, again and again for so many seconds. Connections are new each time.

    Raises VoidError if it does not count.
    """
    made: list[Burst] = []
    until = time.monotonic() + seconds
    while not made or time.monotonic() < until:
        made.append(burst(site, gateway, streams=scenario.streams, tokens=1, seconds_max=_PATIENCE_SECONDS))
    count = sum(one.tally.streams for one in made)
    return {
        "call_us": sum(one.gateway_seconds for one in made) / count * 1e6,
        "client_us_per_call": sum(one.client_seconds for one in made) / count * 1e6,
        "engine_us_per_call": sum(one.engine_seconds for one in made) / count * 1e6,
    }
