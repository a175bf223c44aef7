"""Results that nobody has measured: round numbers, made up for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.goals import (
    BARE,
    FILE_JOURNAL,
    FIREHOSE,
    IDIOMATIC,
    LITELLM,
    PACED,
    REDIS_JOURNAL,
    SGLANG_ROUTER,
    TELEMETRY_OFF,
    TOKENWIRE,
)
from bench.results import Results, Sample
from bench.rows import CHAT, GENERATE

# CPU per token of each system, in the first of the rounds.
COSTS = {
    TOKENWIRE: 20.0,
    FILE_JOURNAL: 21.0,
    REDIS_JOURNAL: 24.0,
    TELEMETRY_OFF: 19.0,
    CHAT: 20.5,
    GENERATE: 20.2,
    BARE: 16.0,
    IDIOMATIC: 80.0,
    SGLANG_ROUTER: 10.0,
    LITELLM: 400.0,
    "nginx": 5.0,
}
ROUNDS = 3


def results(samples: Sequence[Sample], **changes: Any) -> Results:
    """Returns results with these samples."""
    values: dict[str, Any] = {
        "mode": "quick",
        "started": "2001-01-01T00:00:00+00:00",
        "machine": {"cores": "2", "processor": "made up"},
        "versions": {one.system: "0.0" for one in samples},
        "absent": {},
        "rounds": ROUNDS,
        "samples": list(samples),
    }
    return Results(**values | changes)


def sample(system: str, scenario: str, number: int, void: str = "", **values: float) -> Sample:
    """Returns one run."""
    return Sample(system=system, scenario=scenario, round=number, values=values, void=void)


def runs(system: str, scenario: str, **figures: Sequence[float]) -> list[Sample]:
    """Returns a run for each round, the first being 1, with these figures."""
    rounds = zip(*figures.values(), strict=True)
    return [
        Sample(system=system, scenario=scenario, round=number, values=dict(zip(figures, values, strict=True)))
        for number, values in enumerate(rounds, start=1)
    ]


def whole(**changes: Any) -> Results:
    """Returns the results of a benchmark in which every system was measured in everything."""
    samples = []
    for system, cost in COSTS.items():
        for number in range(1, ROUNDS + 1):
            samples += [
                Sample(system=system, scenario=scenario, round=number, values=values)
                for scenario, values in _round(cost, number).items()
            ]
    return results(samples, **changes)


def _round(cost: float, number: int) -> Mapping[str, dict[str, float]]:
    # A machine that is slower in each round is slower for all.
    slow = cost * (1 + number / 10)
    tokens = {"client_us_per_token": 2.0, "engine_us_per_token": 1.0, "messages_per_token": 1.0}
    latency = {
        "added_p50_us": slow * 5,
        "added_p99_us": slow * 10,
        "added_p999_us": slow * 50,
        "ttft_p50_us": slow * 90,
    }
    carried = {"streams": 600.0, "cpu_us_per_token": slow}
    return {
        PACED: {"cpu_us_per_token": slow, **tokens, **latency},
        FIREHOSE: {"cpu_us_per_token": slow / 10, **tokens},
        "call": {"call_us": slow * 8, "client_us_per_call": 9.0, "engine_us_per_call": 7.0},
        **{f"latency/{count}": latency for count in (1, 32, 256, 1000)},
        **{f"ttft/{count}": {"ttft_p50_us": slow * 90, "ttft_p99_us": slow * 200} for count in (1, 32, 256, 1000)},
        **{f"memory/{count}": {"rss_idle_bytes": 4e7, "rss_bytes_per_stream": slow * 1024} for count in (100, 1000)},
        "syscalls/100": {"syscalls_per_token": 3.0},
        "saturation": {"tokens_per_second": 1e6 / slow, **carried},
        "two-processes": {"tokens_per_second": 2e6 / slow, **carried},
    }
