"""A stream's silence, and a client that does not read, by one timer."""

import asyncio

import pytest

from harness.clock import JumpingLoop
from tokenwire.rpc.watch import StalledError, StreamLimits, Watch
from unit.rpc.streams import SlowCall

LIMITS = StreamLimits(heartbeat=10.0, stall=30.0)


async def follow(call: SlowCall, changes: list[float], limits: StreamLimits = LIMITS) -> list[float]:
    """Writes at each change and in silence until the last change; returns when there was silence."""
    loop = asyncio.get_running_loop()
    changed, silences = asyncio.Event(), []
    for at in changes:
        loop.call_at(at, changed.set)
    left = len(changes)
    with Watch(call, limits) as watch:
        while left:
            if await watch.change(changed.wait):
                changed.clear()
                left -= 1
            else:
                silences.append(loop.time())
            await watch.write("message")
    return silences


@pytest.mark.asyncio
async def test_silence_is_noticed_after_its_limit_and_again_after_each_further_one() -> None:
    assert await follow(SlowCall(), [35.0]) == [10.0, 20.0, 30.0]


@pytest.mark.asyncio
async def test_every_message_puts_the_next_heartbeat_off() -> None:
    assert await follow(SlowCall(), [9.0, 18.0, 27.0, 42.0]) == [37.0]


@pytest.mark.asyncio
async def test_a_stream_that_is_never_silent_hears_no_heartbeat() -> None:
    assert await follow(SlowCall(), [float(second) for second in range(1, 100)]) == []


@pytest.mark.asyncio
async def test_a_client_that_takes_its_time_for_every_message_is_never_cut() -> None:
    call = SlowCall(seconds=29.0)
    silences = await follow(call, [0.0, 29.5, 59.0, 89.0, 118.5])
    assert call.messages == 5 + len(silences)


@pytest.mark.parametrize("limits", [LIMITS, StreamLimits(heartbeat=30.0, stall=2.0), StreamLimits(stall=0.5)])
@pytest.mark.parametrize("begins", [0.0, 0.25, 1.9, 2.0, 7.0, 10.0, 29.5, 59.0])
@pytest.mark.asyncio
async def test_a_client_that_reads_no_more_is_cut_exactly_after_its_limit(begins: float, limits: StreamLimits) -> None:
    loop, call = asyncio.get_running_loop(), SlowCall()

    async def stream() -> None:
        with Watch(call, limits) as watch:
            await asyncio.sleep(begins)
            call.seconds = None
            await watch.write("message")

    with pytest.raises(StalledError):
        await stream()
    assert loop.time() == begins + limits.stall
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


@pytest.mark.asyncio
async def test_no_heartbeat_comes_in_the_middle_of_a_write_or_of_other_work() -> None:
    call = SlowCall(seconds=25.0)
    with Watch(call, LIMITS) as watch:
        await watch.write("message")
        await asyncio.sleep(100)
        changed = asyncio.Event()
        asyncio.get_running_loop().call_later(1.0, changed.set)
        assert await watch.change(changed.wait)
    assert call.messages == 1


@pytest.mark.asyncio
async def test_a_client_that_leaves_at_the_very_moment_of_a_heartbeat_or_a_cut_has_left() -> None:
    loop = asyncio.get_running_loop()
    for call, changed in ((SlowCall(), asyncio.Event()), (SlowCall(seconds=None), None)):

        async def stream(call: SlowCall = call, changed: asyncio.Event | None = changed) -> None:
            with Watch(call, StreamLimits(heartbeat=10.0, stall=10.0)) as watch:
                if changed is None:
                    await watch.write("message")
                else:
                    await watch.change(changed.wait)

        for begun in (False, True):
            task = loop.create_task(stream())
            if begun:
                # Its own timer is set, and so fires, before ours.
                await asyncio.sleep(0)
            loop.call_later(10.0, task.cancel)
            await asyncio.wait([task])
            assert task.cancelled()


@pytest.mark.asyncio
async def test_nothing_is_left_of_a_watch_and_other_errors_pass_it() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ValueError, match="other"), Watch(SlowCall(), LIMITS):
        raise ValueError("other")
    assert isinstance(loop, JumpingLoop)
    assert all(timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]
