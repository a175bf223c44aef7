"""Streams at a steady rate: what a token costs, and how long it takes."""

from bench.burst import burst
from bench.figures import token_figures
from bench.gateway import Gateway
from bench.scenarios import Scenario
from bench.site import Site

# Of a gateway that cannot keep up, so many times the planned time is waited for.
PATIENCE = 15
MORE_SECONDS = 30


def paced(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Measures streams at the scenario's rate for so many seconds. Raises VoidError if it does not count."""
    tokens = max(2, round(scenario.rate * seconds))
    patience = seconds * PATIENCE + MORE_SECONDS
    # The cost of the calls alone, which is taken off.
    calls = burst(site, gateway, streams=scenario.streams, tokens=1, seconds_max=patience)
    long = burst(site, gateway, streams=scenario.streams, tokens=tokens, seconds_max=patience)
    return token_figures(long, calls, tokens=tokens)
