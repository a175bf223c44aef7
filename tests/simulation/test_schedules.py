"""Thousands of schedules of faults, each a function of its seed, break no promise."""

from collections import Counter

import pytest

from simulation.kinds import KINDS, kind_of, play, seeds

# How many schedules of each kind are played by default, and how often each fault comes about in so many at least.
EXPECTED: dict[str, tuple[int, dict[str, int]]] = {
    "clients": (
        700,
        {
            "call cut": 200,
            "call dropped": 100,
            "call lost": 100,
            "call black hole": 30,
            "client leaves": 150,
            "client rewinds": 100,
            "client does not read": 50,
            "slow_consumer": 40,
            "request submitted again": 500,
            "run cancelled": 40,
            "run orphaned": 5,
        },
    ),
    "engines": (
        700,
        {
            "engine killed before text": 30,
            "engine killed after text": 60,
            "engine cut after text": 30,
            "engine stalled": 50,
            "engine garbled": 20,
            "engine refused": 30,
            "went on FIRST": 50,
            "went on BY_TOKENS": 50,
            "went on BY_TEXT": 50,
            "call cut": 100,
        },
    ),
    "restarts": (
        500,
        {
            "gateway killed": 200,
            "gateway killed in a write": 40,
            "gateway died at its start": 20,
            "gateway died at its stop": 5,
            "gateway restarted": 80,
            "power lost": 50,
            "went on BY_TOKENS": 50,
            "went on BY_TEXT": 30,
            "run cancelled": 40,
        },
    ),
    "replicas": (
        400,
        {
            "gateway killed": 100,
            "gateway frozen": 40,
            "gateway restarted": 20,
            "store away": 60,
            "store empty": 20,
            "store step lost": 50,
            "taken over": 40,
            "went on BY_TOKENS": 30,
            "went on BY_TEXT": 20,
            "run cancelled": 30,
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_schedule_breaks_a_promise(kind: str, pytestconfig: pytest.Config) -> None:
    count, expected = EXPECTED[kind]
    asked = pytestconfig.getoption("--schedules", default=None)
    only = pytestconfig.getoption("--seed", default=None)
    if only is not None and kind != kind_of(only):
        pytest.skip("the seed is of another kind")
    fired: Counter[str] = Counter()
    for seed in seeds(kind, asked or count) if only is None else [only]:
        outcome = play(seed)
        fired += outcome.fired
        if outcome.problems:
            pytest.fail(f"python -m simulation.replay {seed}\n{outcome.told()}", pytrace=False)
    if only is None:
        scale = min(1.0, (asked or count) / count)
        rare = {one: fired[one] for one, least in expected.items() if fired[one] < least * scale}
        assert not rare, f"these faults were to come about more often: {rare}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_is_a_function_of_its_seed(kind: str) -> None:
    for seed in seeds(kind, 10):
        assert play(seed) == play(seed)
