"""How often the store is asked to take something, and how much at a time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from harness.model_server import ModelServer
from harness.model_store import ModelStore
from harness.records import record
from tokenwire.domain.context import Clock
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import End, Timings, Usage
from tokenwire.journal.log import RunLog
from tokenwire.journal.redis.appender import BATCH_BYTES, Appender
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.holdings import Holdings
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.store import Append, Outcome
from tokenwire.journal.redis.writing import Writing


class Counted(ModelStore):
    """A store that counts, and holds answers back.

    Attributes:
        batches: the appends, as they came.
        held: the steps that are not answered.
        under_way: how many steps of each kind wait for their answer.
        bugs: how many of the next appends fail as nothing should.
    """

    def __init__(self) -> None:
        super().__init__(ModelServer(asyncio.get_running_loop().time), reply=self._hold)
        self.batches: list[list[Append]] = []
        self.under_way: Counter[str] = Counter()
        self.held: set[str] = set()
        self.bugs = 0

    async def append(self, batch: Any) -> list[Outcome]:
        if self.bugs:
            self.bugs -= 1
            raise ZeroDivisionError
        self.batches.append(list(batch))
        return await super().append(batch)

    async def _hold(self, step: str) -> None:
        self.under_way[step] += 1
        while step in self.held:  # noqa: ASYNC110 - any of several steps
            await asyncio.sleep(0)
        self.under_way[step] -= 1


@asynccontextmanager
async def appending(runs: int, bugs: int = 0) -> AsyncIterator[tuple[Counted, list[RunLog]]]:
    """Yields a store that has so many runs, and their logs. The first appends fail as only a bug does."""
    store, holdings, loop = Counted(), Holdings(10**9), asyncio.get_running_loop()
    clock = Clock(monotonic=loop.time, wall=loop.time)
    link = Link(clock, 1.0, lambda: None, lambda was_down: None)
    appender = Appender(cast("Any", store), Codec(), link, holdings, clock, lease_seconds=10.0, goes_on=True)
    logs = []
    for number in range(runs):
        writing = Writing(record(f"run-{number}"), RunLog(epoch=1), "a", 1, created=True)
        await store.create(writing.new_run(Codec(), 10.0))
        appender.take(writing)
        logs.append(writing.log)
    store.bugs = bugs

    async def run() -> None:
        # As the journal does.
        while True:
            with suppress(ZeroDivisionError):
                await appender.run()

    task = asyncio.create_task(run())
    try:
        yield store, logs
    finally:
        task.cancel()
        await asyncio.wait([task])


def write(log: RunLog, text: str = "a") -> None:
    log.append_text(Channel(), text, 1, (7,), 1)
    log.wake()


async def waits(store: Counted, step: str, count: int = 1) -> None:
    """Waits until so many steps wait for their answer."""
    async with asyncio.timeout(5):
        while store.under_way[step] < count:  # noqa: ASYNC110 - the store does not tell
            await asyncio.sleep(0)


async def committed(*logs: RunLog) -> None:
    """Waits until readers may see all of these."""
    async with asyncio.timeout(5):
        for log in logs:
            while log.committed < log.head:
                await log.changed()


@pytest.mark.asyncio
async def test_what_is_appended_is_sent_at_once_and_what_comes_meanwhile_goes_as_one_frame_a_run() -> None:
    async with appending(3) as (store, logs):
        store.held.add("append")
        write(logs[0])
        await waits(store, "append")
        for _ in range(50):
            for log in logs:
                write(log)
        assert [log.committed for log in logs] == [0, 0, 0]
        store.held.clear()
        await committed(*logs)
        assert [[(one.first, one.last) for one in batch] for batch in store.batches] == [
            [(1, 1)],
            [(2, 51), (1, 50), (1, 50)],
        ]


@pytest.mark.asyncio
async def test_a_batch_is_bounded_in_bytes_however_much_there_is_to_write() -> None:
    async with appending(6) as (store, logs):
        for log in logs:
            write(log, "x" * (BATCH_BYTES // 2))
        await committed(*logs)
        assert [len(batch) for batch in store.batches] == [2, 2, 2]
        assert sorted(one.lease.name for batch in store.batches for one in batch) == [
            f"local:run-{n}" for n in range(6)
        ]


@pytest.mark.asyncio
async def test_the_store_tidies_up_after_many_runs_at_once() -> None:
    async with appending(5) as (store, logs):
        store.held.add("finish")
        for log in logs:
            write(log)
            log.append(End(choices=(), usage=Usage(), timings=Timings(), channels=()), 2)
        await committed(*logs)
        await waits(store, "finish", 5)
        store.held.clear()


@pytest.mark.asyncio
async def test_what_a_bug_has_left_is_written_by_whoever_goes_on() -> None:
    async with appending(2, bugs=1) as (store, logs):
        write(logs[0])
        await committed(logs[0])
        assert not store.bugs
