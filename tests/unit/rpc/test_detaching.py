"""A run waits for readers that the server itself sent away, whoever else reads it meanwhile."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tokenwire.dispatch.presence import Presence
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.watch import StreamLimits
from unit.rpc.streams import SlowCall, WrittenRun

LIMITS = StreamLimits(heartbeat=10.0, stall=10.0, resume=30.0)


class Attended(WrittenRun):
    """A run that knows when it was stopped for want of a reader."""

    readers = 0
    here = True
    kept_until = 0.0
    grace_timer: asyncio.TimerHandle | None = None
    stopped_at: float | None = None

    def stop(self, cause: object) -> None:
        self.stopped_at = asyncio.get_running_loop().time()


def presence() -> Presence:
    journal = SimpleNamespace(shared=False, attend=lambda run_id, readers: None)
    return Presence(cast("Any", journal), lambda run: None)


async def cut_after_ten_seconds(runs: Presence, run: Attended) -> None:
    with pytest.raises(Exception, match="did not read"):
        await Reader(cast("Any", runs), LIMITS).stream(cast("Any", run), None, SlowCall(seconds=None))


@pytest.mark.parametrize(("grace", "stops"), [(0.0, 40.0), (29.0, 40.0), (50.0, 60.0), (None, None)])
@pytest.mark.asyncio
async def test_a_run_lives_for_its_grace_after_a_cut_and_for_the_time_to_resume_at_least(
    grace: float | None, stops: float | None
) -> None:
    runs, run = presence(), Attended(grace=grace)
    await cut_after_ten_seconds(runs, run)
    await asyncio.sleep(100)
    assert run.stopped_at == stops


@pytest.mark.parametrize(("leaves", "stops"), [(5.0, 40.0), (15.0, 40.0), (39.0, 40.0), (45.0, 45.0)])
@pytest.mark.asyncio
async def test_another_reader_that_leaves_takes_nothing_from_the_one_that_was_cut(leaves: float, stops: float) -> None:
    runs, run = presence(), Attended(grace=0.0)
    loop = asyncio.get_running_loop()
    other = loop.create_task(Reader(cast("Any", runs), LIMITS).stream(cast("Any", run), None, SlowCall()))
    loop.call_at(leaves, other.cancel)
    await cut_after_ten_seconds(runs, run)
    await asyncio.wait([other])
    await asyncio.sleep(100)
    assert run.stopped_at == stops
