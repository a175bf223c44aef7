"""What a load client has counted."""

from collections.abc import Sequence
from typing import Any

import msgspec


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the load client, as it prints it; load/README.md has all of it. Latencies are in microseconds.

    Attributes:
        streams: how many calls were asked for.
        done: how many ended well.
        failed: how many did not.
        held: how many were open at the end, if they were to be held open.
        calls_failed: how many failed, by reason.
        tokens: how many tokens came.
        expected: how many should have come.
        messages: how many messages or events they came in, those without a token included.
        wall_seconds: from the first call to the last end.
        added_p50_us: from the engine's write of a token to its arrival, the median.
        added_p99_us: the same, 99th percentile.
        added_p999_us: the same, 99.9th percentile.
        ttft_p50_us: from a call to its first token, the median, with what the engine waits.
        ttft_p99_us: the same, 99th percentile.
        tokens_per_second: all streams together.
        cpu_seconds: the client's own.
    """

    streams: int
    done: int
    failed: int
    held: int = 0
    calls_failed: dict[str, int] = {}
    tokens: int
    expected: int
    messages: int
    wall_seconds: float
    added_p50_us: float
    added_p99_us: float
    added_p999_us: float
    ttft_p50_us: float
    ttft_p99_us: float
    tokens_per_second: float
    cpu_seconds: float


_WORST = frozenset(name for name in Tally.__struct_fields__ if name.endswith("_us")) | {"wall_seconds"}


def merged(tallies: Sequence[Tally]) -> Tally:
    """Returns clients that ran at the same time as one: counts are added; of latencies the worst one stands."""
    if len(tallies) == 1:
        return tallies[0]
    values: dict[str, Any] = {
        name: (max if name in _WORST else sum)(getattr(one, name) for one in tallies)
        for name in Tally.__struct_fields__
        if name != "calls_failed"
    }
    reasons: dict[str, int] = {}
    for one in tallies:
        for reason, count in one.calls_failed.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return Tally(**values, calls_failed=reasons)
