"""Many slow streams open at once: what each of them takes of memory."""

import time

from bench.burst import settle
from bench.client import Calls
from bench.gateway import Gateway
from bench.measures.paced import MORE_SECONDS, PATIENCE
from bench.scenarios import Scenario
from bench.site import Site
from bench.void import VoidError, failures

# A stream that may get many more than it is held for; a gateway may set memory aside for all that are asked for.
_SPARE_TOKENS = 2
_LOOK_SECONDS = 0.1


def memory(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Measures memory idle, and the most there is in the seconds after the last stream has told its first token.

    Raises:
        VoidError: if the streams were not all open at the same time.
    """
    settle(gateway)
    patience = seconds * PATIENCE + MORE_SECONDS
    idle = gateway.rss_bytes()
    calling = site.client.calling(
        gateway.system,
        gateway.doors[0],
        streams=scenario.streams,
        tokens=round(_SPARE_TOKENS * patience * scenario.rate),
        seconds_max=patience,
        hold_seconds=seconds,
        folder=gateway.folder,
        name="client-0",
    )
    with calling as calls:
        full = _watch(gateway, calls, seconds)
        tally = calls.finish()
    if told := gateway.ended() or failures(tally):
        raise VoidError(told, {"rss_idle_bytes": idle})
    if tally.held != scenario.streams:
        raise VoidError(f"{tally.held} of {scenario.streams} streams were open at once", {"rss_idle_bytes": idle})
    return {"rss_idle_bytes": idle, "rss_bytes": full, "rss_bytes_per_stream": (full - idle) / scenario.streams}


def _watch(gateway: Gateway, calls: Calls, seconds: float) -> int:
    while not calls.held and not calls.over:
        time.sleep(_LOOK_SECONDS)
    full = 0
    # The last look is well before the streams are given up.
    until = time.monotonic() + 0.7 * seconds
    while time.monotonic() < until and not calls.over:
        full = max(full, gateway.rss_bytes())
        time.sleep(_LOOK_SECONDS)
    return full
