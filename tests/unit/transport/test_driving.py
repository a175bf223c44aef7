"""Coroutines that run without a task."""

import asyncio

import pytest

from tokenwire.transport.driving import drive


class Ends:
    """What `drive` told of its coroutines' ends."""

    def __init__(self) -> None:
        self.told: list[BaseException | None] = []

    def __call__(self, error: BaseException | None) -> None:
        self.told.append(error)


@pytest.mark.asyncio
async def test_a_coroutine_that_waits_for_nothing_ends_at_once() -> None:
    async def nothing() -> None:
        pass

    ends = Ends()
    drive(nothing(), ends)
    assert ends.told == [None]


@pytest.mark.asyncio
async def test_it_goes_on_when_what_it_waits_for_is_done_and_makes_no_task() -> None:
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    seen: list[object] = []

    async def waits() -> None:
        seen.append(await first)
        await asyncio.sleep(0)
        seen.append(await second)

    ends, tasks = Ends(), asyncio.all_tasks()
    drive(waits(), ends)
    first.set_result("a")
    for _ in range(3):
        await asyncio.sleep(0)
    assert (seen, ends.told) == (["a"], [])
    assert asyncio.all_tasks() == tasks
    second.set_result("b")
    await asyncio.sleep(0)
    assert (seen, ends.told) == (["a", "b"], [None])


@pytest.mark.asyncio
@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_it_raises_is_told_once(cancelled: bool) -> None:
    future = asyncio.get_running_loop().create_future()

    async def waits() -> None:
        await future

    ends = Ends()
    drive(waits(), ends)
    if cancelled:
        future.cancel()
    else:
        future.set_exception(ValueError("broken"))
    await asyncio.sleep(0)
    (error,) = ends.told
    assert isinstance(error, asyncio.CancelledError if cancelled else ValueError)
