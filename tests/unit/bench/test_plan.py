"""Who is measured when."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from bench.goals import GOALS
from bench.plan import Plan, make_plan
from bench.rows import GOAL_ROWS, OURS, PACED_ONLY, is_ours
from bench.scenarios import SCENARIOS, Mode
from bench.systems.registry import all_systems

SYSTEMS = [one.name for one in all_systems()]
FIGURES_WITH_FIVE_ROUNDS = ("paced/100", "firehose/100", "call")


def plan(mode: Mode = Mode.QUICK, seed: int = 1, systems: Sequence[str] = SYSTEMS) -> Plan:
    return make_plan(systems, mode=mode, rng=Random(seed))


def counts(made: Plan) -> Counter[tuple[str, str]]:
    return Counter((visit.system, one.name) for visit in made.visits for one in visit.scenarios)


def orders(made: Plan, visit: str) -> list[tuple[str, ...]]:
    """Returns the systems' order in each round."""
    found: dict[int, list[str]] = {}
    for one in made.visits:
        if one.scenarios[0].visit == visit:
            found.setdefault(one.round, []).append(one.system)
    return [tuple(order) for _, order in sorted(found.items())]


def test_one_seed_gives_one_order_and_another_seed_another() -> None:
    assert plan(seed=1) == plan(seed=1)
    assert orders(plan(seed=1), "paced") != orders(plan(seed=2), "paced")


def test_each_round_has_an_order_of_its_own() -> None:
    rounds = orders(plan(Mode.FULL), "paced")[:2]
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(SYSTEMS)
    assert rounds[0] != rounds[1]


def test_what_is_compared_is_measured_side_by_side() -> None:
    visits = [(one.round, one.scenarios[0].visit) for one in plan().visits]
    changes = [one for one, before in zip(visits, [None, *visits], strict=False) if one != before]
    assert len(changes) == len(set(visits))
    assert [number for number, _ in visits] == sorted(number for number, _ in visits)


def test_nobody_is_measured_twice_in_a_round() -> None:
    seen = Counter((visit.round, visit.system, one.name) for visit in plan().visits for one in visit.scenarios)
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("mode", Mode)
def test_what_a_goal_compares_has_at_least_five_rounds(mode: Mode) -> None:
    found = counts(plan(mode))
    for goal in GOALS:
        for system in filter(None, (goal.system, goal.to)):
            wanted = 5 if goal.scenario in FIGURES_WITH_FIVE_ROUNDS else 1
            assert found[system, goal.scenario] >= wanted
    assert all(found[OURS, name] >= 5 for name in FIGURES_WITH_FIVE_ROUNDS)


def test_the_full_benchmark_measures_everybody_in_everything_that_is_theirs() -> None:
    found = {pair for pair, count in counts(plan(Mode.FULL)).items() if count}
    one_process = {one.name for one in SCENARIOS if one.copies == 1}
    for system in SYSTEMS:
        theirs = {name for one, name in found if one == system}
        if system == OURS:
            assert theirs == {one.name for one in SCENARIOS}
        elif system in PACED_ONLY:
            assert theirs == {"paced/100"}
        elif is_ours(system):
            assert theirs == {"paced/100", "call", "firehose/100"}
        else:
            assert theirs == one_process


def test_the_quick_benchmark_takes_about_ten_minutes_and_the_full_one_about_35() -> None:
    assert 8 * 60 < plan(Mode.QUICK).seconds < 11 * 60
    assert 30 * 60 < plan(Mode.FULL).seconds < 39 * 60


def test_an_estimate_grows_with_what_there_is_to_do() -> None:
    few = plan(systems=[OURS])
    assert few.seconds < plan(systems=[OURS, "nginx"]).seconds
    slow = make_plan(["litellm"], mode=Mode.QUICK, rng=Random(1), scenarios=["paced/100"])
    quick = make_plan([OURS], mode=Mode.QUICK, rng=Random(1), scenarios=["paced/100"])
    assert slow.seconds > 2 * quick.seconds


def test_rounds_that_are_asked_for_hold_for_all() -> None:
    made = make_plan(SYSTEMS, mode=Mode.FULL, rng=Random(1), rounds=3)
    assert made.rounds == 3
    assert set(counts(made).values()) == {3}


def test_who_names_systems_and_scenarios_gets_all_of_them() -> None:
    row = next(iter(PACED_ONLY))
    made = make_plan([row], mode=Mode.QUICK, rng=Random(1), scenarios=["latency/256", "memory/100"], chosen=True)
    assert counts(made).keys() == {(row, "latency/256"), (row, "memory/100")}


def test_scenarios_of_one_visit_share_the_engine_and_the_number_of_processes() -> None:
    for visit in plan(Mode.FULL).visits:
        assert len({(one.rate, one.copies) for one in visit.scenarios}) == 1


def test_the_goals_systems_are_there() -> None:
    assert set(SYSTEMS) >= GOAL_ROWS
    assert len(SYSTEMS) == len(set(SYSTEMS))
