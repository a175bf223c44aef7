"""Figures of calls that have run: what a token costs, beside what a call costs."""

from bench.burst import Burst
from bench.void import VoidError


def per_token(long: float, calls: float, *, streams: int, tokens: int) -> float:
    """Returns what a token costs, the calls' own cost taken off.

    Args:
        long: what calls with so many tokens have cost together.
        calls: what as many calls with one token each have cost.
        streams: how many calls.
        tokens: how many tokens each of the long ones had, two or more.
    """
    return (long - calls) / (streams * (tokens - 1))


def token_figures(long: Burst, calls: Burst, *, tokens: int) -> dict[str, float]:
    """Returns the figures of paced or unpaced streams.

    Args:
        long: calls with so many tokens.
        calls: as many calls with one token each, just before.
        tokens: how many.

    Raises:
        VoidError: with the figures, if they are not the gateway's: the load programs were too busy, or the calls alone
            have cost more than calls with tokens.
    """

    def net(name: str) -> float:
        return per_token(getattr(long, name), getattr(calls, name), streams=long.tally.streams, tokens=tokens) * 1e6

    messages = per_token(long.tally.messages, calls.tally.messages, streams=long.tally.streams, tokens=tokens)
    values = {
        "cpu_us_per_token": net("gateway_seconds"),
        "messages_per_token": messages,
        **latencies(long),
        "client_us_per_token": net("client_seconds"),
        "engine_us_per_token": net("engine_seconds"),
        "gateway_cores": long.gateway_seconds / long.tally.wall_seconds,
    }
    if long.companion_seconds:
        values["companion_us_per_token"] = net("companion_seconds")
    if long.void:
        raise VoidError(long.void, values)
    if values["cpu_us_per_token"] <= 0:
        raise VoidError("calls with one token have cost more than calls with many", values)
    return values


def latencies(run: Burst) -> dict[str, float]:
    """Returns what the clients saw of time, and the rate at which tokens came.

    Not the time to the first token: a paced engine lets it wait for up to a period.
    """
    tally = run.tally
    return {
        "added_p50_us": tally.added_p50_us,
        "added_p99_us": tally.added_p99_us,
        "added_p999_us": tally.added_p999_us,
        "tokens_per_second": tally.tokens_per_second,
    }
