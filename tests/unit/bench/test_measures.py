"""What is done with a gateway in each kind of scenario."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.burst import Burst, split
from bench.client import Calls
from bench.gateway import Gateway
from bench.measures import calls, firehose, first_token, memory, paced
from bench.site import Site
from bench.tally import Tally
from bench.void import VoidError
from unit.bench.measured import NOWHERE, burst, gateway, scenario, tally

CALL_US, TOKEN_US = 300.0, 20.0


@pytest.fixture
def bursts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Puts a gateway of known cost in place of a real one, and returns streams and tokens of each burst."""
    seen: list[tuple[int, int]] = []

    def made(*_: Any, streams: int, tokens: int, **__: Any) -> Burst:
        seen.append((streams, tokens))
        counted = tally(
            streams=streams,
            tokens=streams * tokens,
            messages=streams * (tokens + 3),
            ttft_p50_us=100.0 * len(seen),
            cpu_seconds=0.0,
        )
        return burst(counted, gateway_seconds=streams * (CALL_US + tokens * TOKEN_US) / 1e6, engine_seconds=0.0)

    for one in (calls, firehose, first_token, paced):
        monkeypatch.setattr(one, "burst", made)
    return seen


def test_calls_alone_are_measured_just_before_tokens(bursts: list[tuple[int, int]], tmp_path: Path) -> None:
    values = paced.paced(NOWHERE, gateway(tmp_path), scenario("paced/100"), 2.0)
    assert bursts == [(100, 1), (100, 100)]
    assert values["cpu_us_per_token"] == pytest.approx(TOKEN_US)


def test_a_firehose_flows_for_as_long_as_was_asked_whatever_a_token_costs(
    bursts: list[tuple[int, int]], tmp_path: Path
) -> None:
    values = firehose.firehose(NOWHERE, gateway(tmp_path), scenario("firehose/100"), 1.0)
    assert bursts == [(100, 1), (100, 100), (100, round(1e6 / TOKEN_US / 100))]
    assert values["cpu_us_per_token"] == pytest.approx(TOKEN_US)
    assert values["messages_per_token"] == pytest.approx(1.0)


def test_the_cost_of_a_call_is_that_of_all_calls_together(bursts: list[tuple[int, int]], tmp_path: Path) -> None:
    values = calls.calls(NOWHERE, gateway(tmp_path), scenario("call"), 0.0)
    assert bursts == [(100, 1)]
    assert values["call_us"] == pytest.approx(CALL_US + TOKEN_US)


def test_the_first_token_is_timed_often_enough(bursts: list[tuple[int, int]], tmp_path: Path) -> None:
    values = first_token.first_token(NOWHERE, gateway(tmp_path), scenario("ttft/1"), 0.0)
    assert bursts == [(1, 1)] * 30
    assert values["ttft_p50_us"] == pytest.approx(1550)


def test_streams_are_shared_between_doors() -> None:
    assert split(101, 2) == [51, 50]
    assert split(5, 1) == [5]


class Held:
    """Calls that are held open: the gateway's memory grows with each look."""

    def __init__(self, told: Tally) -> None:
        self.held = True
        self.over = False
        self._told = told

    def finish(self) -> Tally:
        return self._told


def hold(monkeypatch: pytest.MonkeyPatch, folder: Path, told: Tally, sizes: Callable[[], int]) -> tuple[Site, Gateway]:
    @contextmanager
    def calling(*_: Any, **asked: Any) -> Iterator[Calls]:
        assert asked["hold_seconds"] > 0
        # No stream may end meanwhile.
        assert asked["tokens"] > asked["seconds_max"] * scenario("memory/1000").rate
        yield cast("Calls", Held(told))

    made = gateway(folder)
    monkeypatch.setattr(made, "rss_bytes", sizes)
    monkeypatch.setattr(memory, "settle", lambda _: None)
    return cast("Site", SimpleNamespace(client=SimpleNamespace(calling=calling))), made


def test_memory_of_a_stream_is_what_all_have_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = iter([50_000_000, 70_000_000, *[80_000_000] * 1000])
    site, made = hold(monkeypatch, tmp_path, tally(streams=1000, done=0, held=1000), lambda: next(sizes))
    values = memory.memory(site, made, scenario("memory/1000"), 0.5)
    assert values == {"rss_idle_bytes": 50e6, "rss_bytes": 80e6, "rss_bytes_per_stream": 30_000}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (tally(streams=1000, failed=1, held=999, calls_failed={"8": 1}), r"1 of 1000 calls failed \(8: 1\)"),
        (tally(streams=1000, done=1, held=999), "999 of 1000 streams were open at once"),
    ],
)
def test_memory_of_fewer_streams_is_void(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: Tally, why: str
) -> None:
    site, made = hold(monkeypatch, tmp_path, told, lambda: 50_000_000)
    with pytest.raises(VoidError, match=why):
        memory.memory(site, made, scenario("memory/1000"), 0.1)
