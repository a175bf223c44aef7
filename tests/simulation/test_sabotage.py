"""A service that is broken on purpose is noticed: else the schedules would prove nothing."""

import pytest

from simulation.kinds import play, seeds
from simulation.sabotage import SABOTAGE
from simulation.test_schedules import EXPECTED


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_promise_is_noticed_and_its_seed_replays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage = SABOTAGE[name]
    sabotage.patch(monkeypatch)
    outcomes = (play(seed) for seed in seeds(sabotage.kind, EXPECTED[sabotage.kind][0]))
    found = next((one for one in outcomes if one.problems), None)
    assert found is not None, "nobody noticed"
    assert play(found.seed).story == found.story
    assert f"seed {found.seed}" in found.told()
    assert found.problems[0] in found.told()
