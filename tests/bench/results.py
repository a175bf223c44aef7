"""What a benchmark has measured. The JSON file is `Results` as it stands here; tables and plots are made of it."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one system in one scenario.

    Attributes:
        system: its name.
        scenario: such as "paced/100", "call", "firehose/100", "ttft/32", "latency/256", "memory/1000", "syscalls/100",
            "saturation", "two-processes"; scenarios.py has all.
        round: counted from 1; in a round each system has its turn, in random order.
        values: figures by name, with the unit at the end of the name: cpu_us_per_token (user and system time of the
            gateway and its children, less what the calls themselves cost), call_us, added_p50_us, added_p99_us,
            added_p999_us, ttft_p50_us, rss_bytes_per_stream, rss_idle_bytes, messages_per_token, syscalls_per_token,
            tokens_per_second, client_us_per_token, engine_us_per_token.
        void: why it does not count; empty if it does.
    """

    system: str
    scenario: str
    round: int
    values: dict[str, float] = {}
    void: str = ""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark.

    Attributes:
        mode: quick or full.
        started: wall-clock time, as ISO 8601 in UTC.
        machine: cores, processor, memory, system, Python.
        versions: of each system that was measured.
        absent: for each system that was not measured, why.
        rounds: how many.
        samples: all of them, void ones included.
        checks: what other load programs counted, beside what ours did.
        prefix: time to first token with and without a cached prefix, on real engines; by engine.
    """

    mode: str
    started: str
    machine: dict[str, str]
    versions: dict[str, str]
    absent: dict[str, str]
    rounds: int
    samples: list[Sample]
    checks: list[dict[str, Any]] = []
    prefix: dict[str, Any] = {}

    def values(self, system: str, scenario: str, figure: str) -> Mapping[int, float]:
        """Returns a figure by round, of the runs that count."""
        return {
            one.round: one.values[figure]
            for one in self.samples
            if one.system == system and one.scenario == scenario and not one.void and figure in one.values
        }
