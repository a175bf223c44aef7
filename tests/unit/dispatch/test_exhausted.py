"""A gateway without room for connections blames no engine for it."""

import pytest

from tokenwire.dispatch.breaker import BreakerLimits, BreakerState
from tokenwire.domain.errors import EngineError
from tokenwire.engines.failure import exhausted, unreachable
from tokenwire.engines.scripted import Fail, ScriptedEngine
from unit.dispatch.house import House, asked


@pytest.mark.parametrize(("failure", "state"), [(exhausted(), BreakerState.CLOSED), (unreachable(), BreakerState.OPEN)])
@pytest.mark.asyncio
async def test_no_room_for_connections_leaves_the_engine_s_breaker_as_it_was(
    failure: EngineError, state: BreakerState
) -> None:
    engine = ScriptedEngine("a", script=lambda job: [Fail(failure)])
    one = House(engine)
    for _ in range(BreakerLimits().before):
        run = await one.submit(asked(detached=True))
        await run.finished()
        assert run.error is not None
        assert run.error.reason == failure.reason
    assert one.fleet.places.breaker(engine).state is state
