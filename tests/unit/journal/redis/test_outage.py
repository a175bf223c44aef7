"""The store goes away and comes back, with what it had or without."""

import asyncio

import pytest

from harness.fault_proxy import fault_proxy
from harness.redis_server import RedisServer
from harness.waiting import until
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.journal.redis.store import BEGINNING
from unit.journal.redis.gateways import Client, Gateway, asked, comes, gateways, text_of, whole


async def written_once(gateway: Gateway, run_id: str) -> None:
    """Checks that the store has each event of a run once."""
    log = (gateway.journal._holdings.writings.get(run_id) or gateway.journal._holdings.mirrors[run_id]).log
    name = gateway.journal._holdings.name(run_id)
    entries = await gateway.store.read(name, BEGINNING)
    numbers = [number for entry in entries for number in range(entry.first, entry.last + 1)]
    assert numbers == list(range(1, log.head + 1))


@pytest.mark.asyncio
@pytest.mark.parametrize("kept", [True, False])
async def test_a_run_outlives_a_restart_of_the_store(
    kept: bool, own_server: RedisServer, durable_server: RedisServer
) -> None:
    server = durable_server if kept else own_server
    async with gateways("a", "b", url=server.url) as (a, b):
        run = await a.submit(asked("mine"))
        clients = [Client(run.id), Client(run.id)]
        reading = [asyncio.create_task(one.follow(place)) for one, place in zip(clients, (a, b), strict=True)]
        await until(lambda: len(clients[1].text) > 5, "both read")
        server.kill()
        await until(lambda: a.journal._link.down, "it is down")
        a.gate.set()
        assert await reading[0] == whole()
        assert clients[1].text != whole()
        server.start()
        assert await reading[1] == whole()
        assert [one.moved for one in clients] == [0, 0]
        await until(lambda: a.journal._holdings.writings[run.id].complete, "the store has all")
        await written_once(a, run.id)
        assert (await b.submit(asked("mine"))).id == run.id


@pytest.mark.asyncio
async def test_finished_runs_are_written_again_to_a_store_that_lost_everything(own_server: RedisServer) -> None:
    async with gateways("a", "b", url=own_server.url) as (a, b):
        a.gate.set()
        run = await a.submit(asked("mine"))
        await comes(run, lambda: run.end is not None)
        before = a.journal._incarnation
        own_server.kill()
        own_server.start()
        await until(lambda: a.journal._incarnation != before, "a has noticed")
        await until(lambda: a.journal._holdings.writings[run.id].finished, "a has written it again")
        assert await Client(run.id).follow(b) == whole()
        assert (await b.submit(asked("mine"))).id == run.id
        assert a.engine.started == 1
        assert b.engine.started == 0


@pytest.mark.asyncio
async def test_new_runs_begin_while_the_store_is_down_and_are_written_later(own_server: RedisServer) -> None:
    async with gateways("a", "b", url=own_server.url) as (a, b):
        own_server.kill()
        run = await a.submit(asked("new"))
        client = Client(run.id)
        reading = asyncio.create_task(client.follow(a))
        await until(lambda: len(client.text) > 5, "it is read")
        assert await a.submit(asked("new")) is run
        with pytest.raises(TokenwireError) as refused:
            await b.find(run.id)
        assert (refused.value.reason, refused.value.retryable) == ("JOURNAL_UNAVAILABLE", True)
        own_server.start()
        a.gate.set()
        assert await reading == whole()
        assert await Client(run.id).follow(b) == whole()
        assert (await b.submit(asked("new"))).id == run.id


@pytest.mark.asyncio
async def test_with_the_other_policy_runs_fail_and_none_begins(own_server: RedisServer) -> None:
    async with gateways("a", url=own_server.url, outage="fail") as (a,):
        run = await a.submit(asked("mine"))
        client = Client(run.id)
        reading = asyncio.create_task(client.follow(a))
        await until(lambda: len(client.text) > 5, "it is read")
        seen = client.text
        own_server.kill()
        await reading
        assert run.error is not None
        assert (run.error.reason, run.error.code) == ("JOURNAL_UNAVAILABLE", Code.DATA_LOSS)
        assert client.text == seen
        with pytest.raises(TokenwireError) as refused:
            await a.submit(asked("another"))
        assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "JOURNAL_UNAVAILABLE")
        assert refused.value.retry_after is not None
        own_server.start()
        a.gate.set()

        await until(lambda: not a.journal._link.down, "it is back")
        later = await a.submit(asked("another"))
        await comes(later, lambda: later.end is not None)


@pytest.mark.asyncio
async def test_store_and_writer_lost_at_once_is_said(own_server: RedisServer) -> None:
    async with gateways("a", "b", url=own_server.url) as (a, b):
        run = await a.submit(asked())
        client = Client(run.id)
        reading = asyncio.create_task(client.follow(b))
        await until(lambda: len(client.text) > 5, "it is read")
        await a.crash()
        own_server.kill()
        own_server.start()
        with pytest.raises(TokenwireError) as said:
            await reading
        assert (said.value.code, said.value.reason) == (Code.DATA_LOSS, "JOURNAL_LOST")
        with pytest.raises(NotFoundError):
            await b.find(b.journal.new_id())


@pytest.mark.asyncio
async def test_a_reader_elsewhere_is_not_forgotten_with_the_store(own_server: RedisServer) -> None:
    async with gateways("a", "b", url=own_server.url) as (a, b):
        run = await a.submit(asked(grace=0.0))
        with a.runs.reading(run):
            await comes(run, lambda: len(text_of(run)) > 5)
            client = Client(run.id)
            reading = asyncio.create_task(client.follow(b))
            await until(lambda: client.text == text_of(run), "the other reader is there")
            own_server.kill()
            await until(lambda: a.journal._link.down, "it is down")
            own_server.start()
            await until(lambda: not a.journal._link.down, "it is back")
        a.gate.set()
        assert await reading == whole()


@pytest.mark.asyncio
async def test_lost_replies_never_write_anything_twice(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        a.hold = 1
        a.path.lose_replies = 2
        run = await a.submit(asked("mine"))
        reading = asyncio.create_task(Client(run.id).follow(b))
        for hold in range(2, 20):
            await comes(run, lambda: run.log.committed == run.log.head)
            a.path.lose_replies = 1 + hold % 2
            if hold == 19:
                a.gate.set()
        assert await reading == whole()
        assert a.path.lost > 2
        await written_once(a, run.id)
        assert run.log.epoch == 1


@pytest.mark.asyncio
async def test_connections_that_break_at_any_moment_do_no_harm(redis_server: RedisServer) -> None:
    async with (
        fault_proxy(redis_server.port) as proxy,
        gateways("a", "b", url=f"redis://127.0.0.1:{proxy.port}/0", lease=5.0) as (a, b),
    ):
        a.gate.set()
        cuts = 0
        for place in range(8):
            run = await a.submit(asked(f"request {place}"))
            reading = asyncio.create_task(Client(run.id).follow(b))
            while not reading.done() and cuts < 40:
                cuts += 1
                await proxy.cut()
                await asyncio.sleep(0.001)
            assert await reading == whole()
            await comes(run, lambda run=run: run.end is not None)  # type: ignore[misc]
            await until(lambda run=run: a.journal._holdings.writings[run.id].complete, "it is kept")  # type: ignore[misc]
            await written_once(a, run.id)
        assert cuts > 8


@pytest.mark.asyncio
async def test_a_network_that_swallows_everything_is_noticed(redis_server: RedisServer) -> None:
    async with (
        fault_proxy(redis_server.port) as proxy,
        gateways("a", url=f"redis://127.0.0.1:{proxy.port}/0") as (a,),
    ):
        for client in (a.store._client, a.store._writer):  # type: ignore[attr-defined]
            client._seconds = 0.2
            await client.close()
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        proxy.black_hole()
        a.gate.set()
        await comes(run, lambda: run.end is not None)
        assert proxy.swallowed
        assert text_of(run) == whole()


@pytest.mark.asyncio
async def test_a_store_without_memory_takes_no_new_run(own_server: RedisServer) -> None:
    async with gateways("a", url=own_server.url) as (a,):
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        own_server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(TokenwireError) as refused:
            await a.submit(asked("another"))
        assert (refused.value.code, refused.value.reason) == (Code.RESOURCE_EXHAUSTED, "JOURNAL_FULL")
        a.gate.set()
        await comes(run, lambda: run.end is not None)
        own_server.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: a.journal._holdings.writings[run.id].complete, "it is kept")
        await until(lambda: not a.journal._link.down, "it is back")
        later = await a.submit(asked("another"))
        await comes(later, lambda: later.end is not None)


@pytest.mark.asyncio
async def test_a_store_that_was_wiped_while_it_ran_gets_everything_again(own_server: RedisServer) -> None:
    async with gateways("a", "b", url=own_server.url) as (a, b):
        run = await a.submit(asked())
        client = Client(run.id)
        reading = asyncio.create_task(client.follow(b))
        await until(lambda: len(client.text) > 5, "it is read")
        own_server.ask("FLUSHALL")
        a.gate.set()
        assert await reading == whole()
        await until(lambda: a.journal._holdings.writings[run.id].complete, "it is kept")
        await written_once(a, run.id)


@pytest.mark.asyncio
async def test_gateways_do_not_steal_from_each_other_after_a_long_outage(durable_server: RedisServer) -> None:
    async with gateways("a", "b", "c", url=durable_server.url) as (a, b, c):
        runs = [await one.submit(asked(f"at {one.name}")) for one in (a, b, c)]
        for run in runs:
            await comes(run, lambda run=run: len(text_of(run)) > 5)  # type: ignore[misc]
        durable_server.kill()
        begun = a.clock.monotonic()
        await until(lambda: a.clock.monotonic() - begun > 2 * a.lease, "all leases are over")
        durable_server.start()
        await until(lambda: not any(one.journal._link.down for one in (a, b, c)), "it is back")
        begun = a.clock.monotonic()
        await until(lambda: a.clock.monotonic() - begun > 2 * a.lease, "all have looked")
        for one, run in zip((a, b, c), runs, strict=True):
            one.gate.set()
            await comes(run, lambda run=run: run.end is not None)  # type: ignore[misc]
            assert run.log.epoch == 1
