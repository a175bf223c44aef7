"""Silence is noticed, and nobody else's cancellation is taken for it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from tokenwire.dispatch.watchdog import Watchdog
from tokenwire.domain.errors import Code, EngineError


def silent() -> EngineError:
    return EngineError(Code.UNAVAILABLE, "SILENT", "silent")


def stalled() -> EngineError:
    return EngineError(Code.UNAVAILABLE, "STALLED", "stalled")


def now() -> float:
    return asyncio.get_running_loop().time()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.asyncio
async def test_silence_for_longer_than_the_limit_is_the_error_and_no_cancellation() -> None:
    began = now()
    with pytest.raises(EngineError, match="silent"), Watchdog(10, silent):
        await asyncio.sleep(1000)
    assert now() - began == pytest.approx(10)
    assert cancelling() == 0


@pytest.mark.asyncio
async def test_feeding_moves_the_limit() -> None:
    async def work() -> None:
        with Watchdog(10, silent) as watchdog:
            for _ in range(20):
                await asyncio.sleep(9)
                watchdog.feed()
            await asyncio.sleep(1000)

    began = now()
    with pytest.raises(EngineError, match="silent"):
        await work()
    assert now() - began == pytest.approx(190)


@pytest.mark.parametrize("limit", [1, 100])
@pytest.mark.asyncio
async def test_another_limit_brings_its_own_error(limit: int) -> None:
    async def work() -> None:
        with Watchdog(10, silent) as watchdog:
            await asyncio.sleep(9)
            watchdog.watch_for(limit, stalled)
            await asyncio.sleep(1000)

    began = now()
    with pytest.raises(EngineError, match="stalled"):
        await work()
    assert now() - began == pytest.approx(9 + limit)


@pytest.mark.asyncio
async def test_what_ends_in_time_is_left_alone_afterwards() -> None:
    with Watchdog(10, silent):
        await asyncio.sleep(9)
    await asyncio.sleep(100)
    assert cancelling() == 0


@pytest.mark.asyncio
async def test_a_cancellation_by_others_stays_one() -> None:
    async def work() -> None:
        with Watchdog(10, silent):
            await asyncio.sleep(1000)

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.asyncio
async def test_a_cancellation_by_others_wins_over_silence() -> None:
    async def work() -> None:
        with Watchdog(10, silent):
            try:
                await asyncio.sleep(1000)
            finally:
                # Closing takes longer than the limit.
                await asyncio.sleep(1000)

    task, began = asyncio.create_task(work()), now()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert now() - began == pytest.approx(10)


@pytest.mark.asyncio
async def test_an_error_of_the_body_is_not_replaced() -> None:
    async def work() -> None:
        with Watchdog(10, silent):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                raise stalled() from None

    with pytest.raises(EngineError, match="stalled"):
        await work()
    assert cancelling() == 0


@pytest.mark.asyncio
async def test_a_generator_that_hangs_while_it_is_closed_is_given_up_too() -> None:
    async def endless() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1000)

    async def work() -> None:
        with Watchdog(10, silent):
            async with aclosing(endless()) as numbers:
                async for _ in numbers:
                    break

    began = now()
    with pytest.raises(EngineError, match="silent"):
        await work()
    assert now() - began == pytest.approx(10)
    assert cancelling() == 0
