"""Streams as fast as they go: what a token of a backlog costs."""

from bench.burst import burst
from bench.figures import per_token, token_figures
from bench.gateway import Gateway
from bench.measures.paced import MORE_SECONDS, PATIENCE
from bench.scenarios import Scenario
from bench.site import Site

_TRY_TOKENS = 100
_TOKENS_MAX = 20_000


def firehose(site: Site, gateway: Gateway, scenario: Scenario, seconds: float) -> dict[str, float]:
    """Measures streams at full speed for about so many seconds of the gateway's CPU time.

    Raises VoidError if it does not count.
    """
    patience = seconds * PATIENCE + MORE_SECONDS
    calls = burst(site, gateway, streams=scenario.streams, tokens=1, seconds_max=patience)
    attempt = burst(site, gateway, streams=scenario.streams, tokens=_TRY_TOKENS, seconds_max=patience)
    cost = per_token(attempt.gateway_seconds, calls.gateway_seconds, streams=scenario.streams, tokens=_TRY_TOKENS)
    tokens = _TOKENS_MAX if cost <= 0 else round(seconds / (cost * scenario.streams))
    tokens = min(max(tokens, _TRY_TOKENS), _TOKENS_MAX)
    long = burst(site, gateway, streams=scenario.streams, tokens=tokens, seconds_max=patience)
    return token_figures(long, calls, tokens=tokens)
