"""Runs that several gateways share: read anywhere, cancelled anywhere, one run for one request."""

import asyncio

import pytest

from harness.redis_server import RedisServer
from harness.waiting import until
from tokenwire.domain.cursor import Cursor
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.domain.events import FinishReason
from tokenwire.journal.journal import JournalError
from tokenwire.journal.redis.journal import RedisJournal
from tokenwire.journal.redis.names import request_name
from tokenwire.journal.redis.redis_store import RedisStore
from unit.journal.redis.gateways import Client, asked, becomes, comes, gateways, text_of, whole


@pytest.mark.asyncio
async def test_a_run_can_be_read_at_any_gateway_while_it_goes_on_and_afterwards(redis_server: RedisServer) -> None:
    async with gateways("a", "b", "c", url=redis_server.url) as (a, b, c):
        run = await a.submit(asked())
        clients = [Client(run.id) for _ in range(4)]
        reading = [asyncio.create_task(one.follow(place)) for one, place in zip(clients, (a, b, b, c), strict=True)]
        await until(
            lambda: all(one.cursor.seq >= run.log.committed >= 10 for one in clients), "all have the first part"
        )
        assert len({one.text for one in clients}) == 1
        a.gate.set()
        assert await asyncio.gather(*reading) == [whole()] * 4
        assert await Client(run.id).follow(c) == whole()
        later = Client(run.id)
        await run.finished()
        a.journal.forget(run.id)
        assert await later.follow(b) == whole()
        assert [one.moved for one in clients] == [0] * 4


@pytest.mark.asyncio
async def test_readers_see_nothing_that_the_store_does_not_have(redis_server: RedisServer) -> None:
    async with gateways("a", url=redis_server.url) as (a,):
        run = await a.submit(asked())
        await comes(run, lambda: run.log.committed == run.log.head >= 10)
        seen = run.log.committed
        a.path.stop()
        a.gate.set()
        await until(lambda: run.log.closed, "the engine has written it to its end")
        assert run.log.committed == seen
        assert run.end is None
        a.path.go_on()
        await comes(run, lambda: run.end is not None)
        assert text_of(run) == whole()


@pytest.mark.asyncio
async def test_what_comes_while_an_append_is_under_way_goes_into_one_next_batch(redis_server: RedisServer) -> None:
    async with gateways("a", url=redis_server.url) as (a,):
        a.hold = 0
        runs = [await a.submit(asked()) for _ in range(5)]
        await until(lambda: all(run.log.committed == run.log.head for run in runs), "all is written")
        a.path.stop()
        a.gate.set()
        await until(lambda: all(run.log.closed for run in runs), "the engine has written all")
        a.path.go_on()
        for run in runs:
            await comes(run, lambda run=run: run.end is not None)  # type: ignore[misc]
        # The first token's batch was under way; all the rest of five runs is in one frame each.
        names = [a.journal._holdings.writings[run.id].name for run in runs]
        entries = [await a.store.read(name, "0-0") for name in names]
        assert all(len(one) <= 5 for one in entries)
        assert [one[-1].last for one in entries] == [run.log.head for run in runs]


@pytest.mark.asyncio
async def test_a_run_is_cancelled_from_another_gateway(redis_server: RedisServer) -> None:
    # Its writer is silent, so that it hears of it by its inbox alone.
    async with gateways("a", "b", url=redis_server.url, lease=60.0) as (a, b):
        run = await a.submit(asked("mine"))
        await comes(run, lambda: len(text_of(run)) > 5)
        cancelled = await b.runs.cancel(b.context, request_id="mine")
        assert cancelled.id == run.id
        assert cancelled.end is not None
        assert cancelled.end.choices[0].finish_reason is FinishReason.CANCELLED
        assert a.engine.running == 0
        assert b.engine.started == 0


@pytest.mark.asyncio
async def test_a_remote_reader_keeps_a_run_alive_and_its_leaving_ends_it(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked(grace=0.0))
        with a.runs.reading(run):
            await comes(run, lambda: len(text_of(run)) > 5)
            client = Client(run.id)
            reading = asyncio.create_task(client.follow(b))
            await until(lambda: client.text == text_of(run), "the other reader is there")
            await until(lambda: bool(b.journal._readers._attended), "that is told")
            name = a.journal._holdings.name(run.id)
            await becomes(lambda: a.store.attended(name, "a"))
        # Longer than what was told at first counts.
        begun = a.clock.monotonic()
        await until(lambda: a.clock.monotonic() - begun > 2 * a.lease, "time passes")
        assert run.stopped is None
        assert await a.store.attended(name, "a"), "that is told again and again"
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        # Nobody would ask again for so long.
        await comes(run, lambda: run.end is not None, seconds=5)
        assert run.error is not None
        assert run.error.reason == "ORPHANED"


@pytest.mark.asyncio
async def test_one_request_id_has_one_run_wherever_it_is_submitted(redis_server: RedisServer) -> None:
    async with gateways("a", "b", "c", url=redis_server.url) as houses:
        for one in houses:
            one.gate.set()
        for place in range(15):
            submitted = [one.submit(asked(f"request {place}")) for one in (*houses, *houses)]
            runs = await asyncio.gather(*submitted)
            assert len({run.id for run in runs}) == 1, f"round {place}"
        assert sum(one.engine.started for one in houses) == 15
        with pytest.raises(TokenwireError) as refused:
            await houses[0].submit(asked("request 1", prompt="Another tale"))
        assert refused.value.reason == "REQUEST_ID_TAKEN"


@pytest.mark.asyncio
async def test_a_failed_run_is_followed_by_one_other_wherever_it_is_asked_for(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        first = await a.submit(asked("again", grace=0.0))
        with a.runs.reading(first):
            await comes(first, lambda: len(text_of(first)) > 5)
        await first.finished()
        await comes(first, lambda: first.error is not None)
        runs = await asyncio.gather(b.submit(asked("again")), a.submit(asked("again")))
        assert runs[0].id == runs[1].id != first.id
        # The one that lost finds the other's the next time, too.
        assert (await a.submit(asked("again"))).id == runs[0].id


@pytest.mark.asyncio
async def test_another_tenants_run_does_not_exist(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        run = await a.submit(asked("mine"))
        with pytest.raises(NotFoundError):
            await b.runs.find("another", run_id=run.id)
        with pytest.raises(NotFoundError):
            await b.runs.find("another", request_id="mine")
        assert await b.runs.known("another") == []
        assert list(await b.runs.known("local")) == [run.id]
        with pytest.raises(NotFoundError):
            await b.find("run_of_nobody")


@pytest.mark.asyncio
async def test_a_finished_run_gives_its_memory_up_and_is_read_from_the_store(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url, max_bytes=150_000) as (a, b):
        a.gate.set()
        finished = []
        for _ in range(40):
            run = await a.submit(asked())
            await comes(run, lambda run=run: run.end is not None)  # type: ignore[misc]
            finished.append(run)
        assert a.journal.held <= 150_000
        gone = [run for run in finished if run.id not in {one.id for one in a.runs.list("local")}]
        assert gone
        assert await Client(gone[0].id).follow(a) == whole()
        assert await Client(gone[-1].id).follow(b) == whole()


@pytest.mark.asyncio
async def test_shares_that_do_not_fit_are_refused(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url, max_bytes=150_000) as (a, b):
        runs = [await a.submit(asked()) for _ in range(2)]
        with pytest.raises(TokenwireError) as refused:
            await a.submit(asked("third"))
        assert (refused.value.code, refused.value.reason) == (Code.RESOURCE_EXHAUSTED, "JOURNAL_FULL")
        # It left no claim behind.
        assert (await b.submit(asked("third"))).request_id == "third"
        a.gate.set()
        for run in runs:
            await comes(run, lambda run=run: run.end is not None)  # type: ignore[misc]


@pytest.mark.asyncio
async def test_a_submit_that_is_broken_off_leaves_no_run_that_somebody_would_write(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        a.path.hang_after = "create"
        submitting = asyncio.create_task(a.submit(asked("left")))
        await a.path.hung.wait()
        a.path.hang_after = ""
        left = await b.store.resolve("local", request_name("left"))
        name = f"local:{left}"
        assert await b.store.load(name) is not None
        submitting.cancel()
        await asyncio.wait([submitting])

        async def is_gone() -> bool:
            return await b.store.load(name) is None

        await becomes(is_gone)
        a.gate.set()
        b.gate.set()
        run = await b.submit(asked("left"))
        assert run.id != left
        await comes(run, lambda: run.end is not None)
        assert (a.engine.started, b.engine.started) == (0, 1)
        assert a.journal.held == 0


@pytest.mark.asyncio
async def test_while_readers_may_not_have_said_again_that_they_read_a_run_counts_as_read(
    redis_server: RedisServer,
) -> None:
    async with gateways("a", url=redis_server.url) as (a,):
        run = await a.submit(asked())
        assert not await a.journal.attended(run.id)
        a.journal._leases.be_patient(60.0)
        assert await a.journal.attended(run.id)


@pytest.mark.asyncio
async def test_a_cursor_of_the_future_is_refused_and_one_of_the_past_is_not(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        a.gate.set()
        run = await a.submit(asked())
        await comes(run, lambda: run.end is not None)
        with pytest.raises(TokenwireError) as refused:
            await Client(run.id, cursor=Cursor(run.log.head + 5, (), 1)).read(b)
        assert refused.value.reason in ("CURSOR_AHEAD", "JOURNAL_BEHIND")


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenwire.journal.redis.journal.START_SECONDS", 0.1)
    async with gateways(url="redis://127.0.0.1:1") as _:
        pass
    with pytest.raises(JournalError, match="does not answer"):
        async with gateways("a", url="redis://127.0.0.1:1"):
            raise AssertionError("it started")
    with pytest.raises(JournalError, match="URL"):
        RedisStore("http://127.0.0.1")
    assert RedisJournal.shared


@pytest.mark.asyncio
async def test_nothing_is_left_of_a_gateway_that_has_closed(redis_server: RedisServer) -> None:
    async with gateways("a", "b", url=redis_server.url) as (a, b):
        a.gate.set()
        run = await a.submit(asked())
        assert await Client(run.id).follow(b) == whole()
        await a.close()
        await b.close()
        assert (a.journal.held, b.journal.held) == (0, 0)
        a.dead = b.dead = True
