"""The goals table, from results that are made up."""

import pytest

from bench.goals import (
    BARE,
    FIREHOSE,
    GOALS,
    LITELLM,
    PACED,
    REDIS_JOURNAL,
    SGLANG_ROUTER,
    TOKENWIRE,
    Standing,
    goals_table,
    standings,
)
from bench.results import Results
from bench.rows import GOAL_ROWS
from unit.bench.fabricated import results, runs, sample, whole


def standing(text: str, measured: Results) -> Standing:
    return next(one for one in standings(measured) if one.goal.text.startswith(text))


def against_bare(ours: list[float], bare: list[float]) -> Standing:
    samples = runs(TOKENWIRE, PACED, cpu_us_per_token=ours) + runs(BARE, PACED, cpu_us_per_token=bare)
    return standing("CPU per token / bare", results(samples))


def test_ratio_is_taken_round_by_round_and_then_its_median() -> None:
    # The machine is twice as slow in the second round; the ratio of the medians would be 20 / 15.
    found = against_bare([10, 40, 20], [10, 20, 15]).measured
    assert found is not None
    assert (found.low, found.high) == (1.0, 2.0)
    assert found.median == pytest.approx(4 / 3)
    assert found.count == 3
    found = against_bare([10, 60, 30], [10, 20, 5]).measured
    assert found is not None
    assert found.median == 3.0, "not 30 / 10"


def test_round_that_one_of_the_two_lacks_does_not_count() -> None:
    samples = [
        *runs(TOKENWIRE, PACED, cpu_us_per_token=[12, 12, 90]),
        *runs(BARE, PACED, cpu_us_per_token=[10, 10]),
        sample(BARE, PACED, 3, void="the port is busy", cpu_us_per_token=1.0),
    ]
    found = standing("CPU per token / bare", results(samples)).measured
    assert found is not None
    assert (found.median, found.count) == (1.2, 2)


def test_bound_itself_is_kept() -> None:
    assert against_bare([13.0], [10.0]).met is True
    assert against_bare([13.01], [10.0]).met is False


def test_further_bound_has_a_verdict_of_its_own() -> None:
    samples = runs(TOKENWIRE, FIREHOSE, cpu_us_per_token=[5.5]) + runs(SGLANG_ROUTER, FIREHOSE, cpu_us_per_token=[10.0])
    found = standing("firehose", results(samples))
    assert (found.met, found.met_later) == (True, False)
    assert "| 0.55 | 1 | met | **missed** |" in goals_table(results(samples))


def test_goal_without_a_further_bound_has_no_verdict_on_it() -> None:
    assert against_bare([10.0], [10.0]).met_later is None


def test_figures_without_a_ratio_are_in_the_units_of_their_bounds() -> None:
    samples = [
        *runs(TOKENWIRE, "memory/1000", rss_bytes_per_stream=[30 * 1024.0]),
        *runs(REDIS_JOURNAL, PACED, added_p50_us=[1100.0]),
    ]
    memory, redis = (standing(text, results(samples)) for text in ("RSS", "Redis"))
    assert memory.measured is not None
    assert redis.measured is not None
    assert (memory.measured.median, memory.met, memory.met_later) == (30.0, True, False)
    assert redis.measured.median == pytest.approx(1.1)
    assert redis.met is False


@pytest.mark.parametrize(
    ("bare", "changes", "why"),
    [
        ([], {}, "bare grpc.aio was not run in paced/100"),
        ([], {"absent": {BARE: "it does not build"}}, "bare grpc.aio is absent"),
        ([sample(BARE, PACED, 1, void="busy")], {}, "all runs of bare grpc.aio in paced/100 are void"),
        ([sample(BARE, PACED, 1, call_us=1.0)], {}, "bare grpc.aio in paced/100 has no cpu_us_per_token"),
        ([sample(BARE, PACED, 2, cpu_us_per_token=1.0)], {}, "no round has both tokenwire and bare grpc.aio"),
    ],
)
def test_what_is_missing_is_said_and_never_met(bare: list, changes: dict, why: str) -> None:  # type: ignore[type-arg]
    found = results(runs(TOKENWIRE, PACED, cpu_us_per_token=[1.0]) + bare, **changes)
    told = standing("CPU per token / bare", found)
    assert (told.measured, told.met, told.met_later, told.missing) == (None, None, None, why)
    assert f"not measured: {why} | 0 | not measured |" in goals_table(found)


def test_results_without_any_sample_have_a_row_for_every_goal() -> None:
    assert goals_table(results([])).count("not measured:") == len(GOALS) == 10


def test_every_goal_is_measured_when_everything_was() -> None:
    assert all(one.measured is not None for one in standings(whole()))


def test_systems_of_all_goals_are_those_that_get_the_most_rounds() -> None:
    named = {name for one in GOALS for name in (one.system, one.to) if name}
    assert named == GOAL_ROWS
    assert LITELLM in named


@pytest.mark.parametrize(("ours", "met"), [([13.01, 13.0, 13.2], False), ([12.99, 12.0, 13.6], True)])
def test_shown_figure_never_contradicts_its_verdict(ours: list[float], met: bool) -> None:
    found = against_bare(ours, [10.0, 10.0, 10.0])
    assert found.met is met
    row = next(line for line in goals_table(_of(ours)).splitlines() if "bare grpc.aio" in line)
    shown = float(row.split("|")[4].split()[0])
    assert (shown <= 1.3) is met
    assert ("**missed**" in row) is not met


def _of(ours: list[float]) -> Results:
    samples = runs(TOKENWIRE, PACED, cpu_us_per_token=ours) + runs(BARE, PACED, cpu_us_per_token=[10.0] * len(ours))
    return results(samples)
