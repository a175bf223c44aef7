"""What uses up a run's attempts."""

from random import Random

import pytest

from tokenwire.dispatch.tries import Failover, Tries
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.scripted import ScriptedEngine


@pytest.mark.parametrize(("reason", "used_up"), [("ENGINE_UNREACHABLE", False), ("ENGINE_LOST", True)])
def test_attempts_that_reach_no_engine_are_bounded_by_time_alone(reason: str, used_up: bool) -> None:
    now = 0.0
    tries = Tries(Failover(attempts=3, seconds=30.0), lambda: now, Random(1))
    for _ in range(3):
        tries.failed(EngineError(Code.UNAVAILABLE, reason, "it failed", retryable=True), ScriptedEngine())
    assert tries.used_up is used_up
    now = 31.0
    assert tries.used_up
