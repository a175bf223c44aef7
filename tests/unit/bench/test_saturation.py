"""Looking for the load that a gateway can just carry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.burst import Burst
from bench.measures import saturation as measure
from bench.measures.saturation import STREAMS_MAX, next_streams, saturation
from bench.void import VoidError
from unit.bench.measured import NOWHERE, burst, gateway, scenario, tally

Steps = list[int]
CALL_SECONDS = 0.002


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Steps]:
    """Puts a gateway of a given capacity in place of a real one, and returns the streams of each step as they come."""

    def make(
        *, streams_a_core: float, late_from: float = 1e9, slow_from: float = 1e9, client_share_a_stream: float = 0.0
    ) -> Steps:
        seen: Steps = []

        def step(*_: Any, streams: int, tokens: int, **__: Any) -> Burst:
            if tokens == 1:
                return burst(tally(streams=streams), gateway_seconds=streams * CALL_SECONDS)
            seen.append(streams)
            late = 200_000.0 if streams > late_from else 1000.0
            counted = tally(
                streams=streams,
                tokens=streams * tokens,
                added_p50_us=late,
                tokens_per_second=100.0 * min(streams, slow_from),
            )
            return burst(
                counted,
                gateway_seconds=streams / streams_a_core + streams * CALL_SECONDS,
                busiest_client_seconds=client_share_a_stream * streams,
            )

        monkeypatch.setattr(measure, "burst", step)
        return seen

    return make


def find(folder: Path, doors: int = 1) -> dict[str, float]:
    return saturation(NOWHERE, gateway(folder, doors), scenario("saturation"), 1.0)


def test_the_load_that_uses_up_a_core_is_found(steps: Callable[..., Steps], tmp_path: Path) -> None:
    seen = steps(streams_a_core=400)
    values = find(tmp_path)
    assert 0.95 <= values["gateway_cores"] <= 1.05
    assert 36_000 <= values["tokens_per_second"] <= 42_000
    assert values["cpu_us_per_token"] == pytest.approx(1e6 / 400 / 100)
    assert len(seen) < 8


def test_a_gateway_whose_tokens_come_late_is_saturated_before(steps: Callable[..., Steps], tmp_path: Path) -> None:
    steps(streams_a_core=1000, late_from=330)
    values = find(tmp_path)
    assert 300 <= values["streams"] <= 330
    assert values["gateway_cores"] < 0.4


def test_a_gateway_that_delivers_less_than_it_is_given_is_saturated_before(
    steps: Callable[..., Steps], tmp_path: Path
) -> None:
    steps(streams_a_core=1000, slow_from=300)
    values = find(tmp_path)
    assert 270 <= values["streams"] <= 334
    assert 27_000 <= values["tokens_per_second"] <= 30_000


def test_a_gateway_that_carries_less_than_the_first_step_is_measured_below_it(
    steps: Callable[..., Steps], tmp_path: Path
) -> None:
    steps(streams_a_core=20)
    assert 19 <= find(tmp_path)["streams"] <= 21


def test_two_processes_may_use_two_cores(steps: Callable[..., Steps], tmp_path: Path) -> None:
    steps(streams_a_core=200)
    assert 1.9 <= find(tmp_path, doors=2)["gateway_cores"] <= 2.1


def test_a_gateway_that_carries_all_there_is_has_no_figure(steps: Callable[..., Steps], tmp_path: Path) -> None:
    seen = steps(streams_a_core=100_000)
    with pytest.raises(VoidError, match="not saturated: it carries 1000 streams"):
        find(tmp_path)
    assert seen[-1] == STREAMS_MAX


def test_load_programs_at_their_end_are_no_figure_of_the_gateway(steps: Callable[..., Steps], tmp_path: Path) -> None:
    steps(streams_a_core=800, client_share_a_stream=1 / 400)
    with pytest.raises(VoidError, match="not saturated: the load client") as error:
        find(tmp_path)
    # What it carried until then is kept.
    assert error.value.values["streams"] >= 200


def test_a_gateway_that_carries_nothing_has_no_figure(steps: Callable[..., Steps], tmp_path: Path) -> None:
    steps(streams_a_core=1000, late_from=0)
    with pytest.raises(VoidError, match="1 streams are too many already"):
        find(tmp_path)


def test_the_next_load_is_near_the_end_and_never_a_leap() -> None:
    assert next_streams(100, used=0.5) == 190
    assert next_streams(100, used=0.01) == 200
    assert next_streams(100, used=0.9) == 120
    assert next_streams(900, used=0.1) == STREAMS_MAX
