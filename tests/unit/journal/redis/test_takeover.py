"""Runs whose gateway dies, stops or shuts down: another one goes on with them, and the first can write no more."""

import asyncio

import pytest

from harness.redis_server import RedisServer
from harness.waiting import until
from tokenwire.domain.cursor import Cursor
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import DetachReason, Dispatched, FinishReason
from tokenwire.journal.redis.store import BEGINNING
from unit.journal.redis.gateways import Client, asked, comes, gateways, text_of, whole


@pytest.mark.asyncio
async def test_when_a_gateway_dies_another_goes_on_and_readers_there_see_no_gap(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked("mine"))
        client = Client(run.id)
        reading = asyncio.create_task(client.follow(b))
        await until(lambda: len(client.text) > 5, "b follows a")
        mirrored = await b.find(run.id)
        await a.crash()
        b.gate.set()
        assert await reading == whole()
        assert client.moved == 0
        taken = await b.find(run.id)
        assert taken is mirrored
        assert taken.log.epoch
        assert taken.log.epoch > 1
        assert [epoch for epoch, _ in taken.log.takeovers] == [taken.log.epoch]
        attempts = [one.marker.attempt for one in taken.log.markers if isinstance(one.marker, Dispatched)]
        assert attempts == [1, 2]
        assert b.engine.started == 1
        assert run.id not in b.journal._holdings.mirrors


@pytest.mark.asyncio
async def test_a_run_that_nobody_reads_is_taken_over_too(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        await a.crash()
        b.gate.set()
        await until(lambda: bool(b.runs.list("local")), "b has seen that nobody writes it")
        (taken,) = b.runs.list("local")
        await comes(taken, lambda: taken.end is not None)
        assert text_of(taken) == whole()
        assert taken.request_id == run.request_id


@pytest.mark.asyncio
async def test_a_run_is_taken_over_again_and_again(redis_server: RedisServer) -> None:
    async with gateways("a", "b", "c", "d", url=redis_server.url) as (a, b, c, d):
        run = await a.submit(asked(tokens=60))
        client = Client(run.id)
        reading = asyncio.create_task(client.follow(d))
        left = {one.name: one for one in (a, b, c, d)}
        for _ in range(2):
            await until(lambda: len(client.text) > 5, "there is text")
            epoch = (await d.find(run.id)).log.epoch
            name = d.journal._holdings.name(run.id)
            stored = await d.store.load(name)
            assert stored is not None
            if stored.lease.owner == "d":
                break
            await left.pop(stored.lease.owner).crash()
            await until(lambda epoch=epoch: _epoch(d, run.id) not in (None, epoch), "it goes on")  # type: ignore[misc]
        for one in left.values():
            one.gate.set()
        assert await reading == whole(60)


def _epoch(gateway: object, run_id: str) -> int | None:
    holdings = gateway.journal._holdings  # type: ignore[attr-defined]
    held = holdings.writings.get(run_id) or holdings.mirrors.get(run_id)
    return held.log.epoch if held else None


@pytest.mark.asyncio
async def test_a_writer_that_was_stopped_and_wakes_can_write_no_more(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked())
        at_a = Client(run.id)
        reading_a = asyncio.create_task(at_a.follow(a, b))
        await comes(run, lambda: run.log.committed == run.log.head >= 10)
        seen = run.log.committed
        a.path.stop()
        a.gate.set()
        await until(lambda: run.log.closed, "its engine has written all, but nobody knows")
        await until(lambda: bool(b.runs.list("local")), "b goes on with it")
        b.hold = 5
        (taken,) = b.runs.list("local")
        await comes(taken, lambda: taken.log.committed > seen)
        assert run.log.committed == seen
        a.path.go_on()
        await until(lambda: run.handed_over is DetachReason.MOVED, "a hears that it has lost it")
        assert run.log.committed == seen
        b.gate.set()
        assert await reading_a == whole()
        assert at_a.moved == 1
        name = b.journal._holdings.name(run.id)
        entries = await b.store.read(name, BEGINNING)
        (epoch,) = {entry.epoch for entry in entries if entry.first > seen}
        assert epoch > 1
        assert run.end is None


@pytest.mark.asyncio
async def test_a_writer_that_wakes_before_anybody_missed_it_goes_on(redis_server: RedisServer) -> None:
    async with gateways("a", url=redis_server.url) as (a,):
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        a.path.stop()
        a.gate.set()
        begun = a.clock.monotonic()
        await until(lambda: a.clock.monotonic() - begun > 1.5 * a.lease, "its lease is over")
        a.path.go_on()
        await comes(run, lambda: run.end is not None)
        assert (run.log.epoch, text_of(run)) == (1, whole())


@pytest.mark.asyncio
async def test_at_a_drain_runs_are_handed_over_in_no_time(redis_server: RedisServer) -> None:
    # Nobody would look for a lease that is over before the test has failed.
    async with gateways("a", "b", url=redis_server.url, lease=60.0) as (a, b):
        runs = [await a.submit(asked(f"request {place}")) for place in range(5)]
        clients = [Client(run.id) for run in runs]
        reading = [asyncio.create_task(one.follow(a, b)) for one in clients]
        await until(lambda: all(len(one.text) > 5 for one in clients), "all are read")
        b.gate.set()
        await a.runs.drain(0)
        assert await asyncio.gather(*reading) == [whole()] * 5
        assert b.engine.started == 5


@pytest.mark.asyncio
async def test_runs_that_nobody_reads_are_handed_over_in_no_time_too(redis_server: RedisServer) -> None:
    async with gateways("a", "b", "c", url=redis_server.url, lease=60.0) as (a, b, c):
        for place in range(6):
            run = await a.submit(asked(f"request {place}"))
            await comes(run, lambda run=run: len(text_of(run)) > 5)  # type: ignore[misc]
        await a.runs.drain(0)
        await until(lambda: b.engine.started + c.engine.started == 6, "the others go on with all")


@pytest.mark.asyncio
async def test_a_cancel_reaches_a_run_whose_writer_is_dead(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        found = await b.find(run.id)
        await a.crash()
        await b.journal.cancel(run.id)
        await comes(found, lambda: found.end is not None)
        assert found.end is not None
        assert found.end.choices[0].finish_reason is FinishReason.CANCELLED
        assert b.engine.started == 0


@pytest.mark.asyncio
async def test_whoever_attaches_to_a_run_that_nobody_writes_makes_it_go_on(redis_server: RedisServer) -> None:
    async with gateways("a", url=redis_server.url) as (a,):
        prefix = a.journal._store._store._prefix  # type: ignore[attr-defined]
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        name = a.journal._holdings.name(run.id)
        await a.journal.hand_over([run.id])
        async with gateways("b", url=redis_server.url, prefix=prefix, lease=60.0) as (b,):
            # It does not look for a long time; what was released before it came, it has not heard.
            b.gate.set()
            assert b.journal._holdings.name(run.id) == ""
            assert await Client(run.id).follow(b) == whole()
            assert b.journal._holdings.writings[run.id].name == name


@pytest.mark.asyncio
async def test_what_was_read_beyond_the_point_where_another_went_on_is_said_to_be_lost(
    redis_server: RedisServer,
) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked())
        await comes(run, lambda: run.log.committed == run.log.head >= 10)
        head = run.log.head
        await a.crash()
        b.gate.set()
        assert await Client(run.id).follow(b) == whole()
        with pytest.raises(TokenwireError) as refused:
            await Client(run.id, cursor=Cursor(head + 1, (), 1)).read(b)
        assert refused.value.reason == "JOURNAL_LOST"


@pytest.mark.asyncio
async def test_a_gateway_without_room_leaves_a_run_to_others(redis_server: RedisServer) -> None:
    async with gateways("a", "b", "c", url=redis_server.url) as (a, b, c):
        b.journal._holdings.room._max_bytes = 1000
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        c.gate.set()
        await a.crash()
        assert await Client(run.id).follow(c) == whole()
        assert b.engine.started == 0
        assert b.journal.held == 0
