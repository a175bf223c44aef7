"""kill -9 of Redis, with and without what it had, and lines to it that break."""

import pytest

from faults.engine import expected
from faults.processes import Home
from faults.reading import PROMPT, reading, whole
from faults.replicas import replicas
from harness.fault_proxy import fault_proxy
from harness.line_faults import Delay, Garbage, Slices
from harness.redis_server import RedisServer
from tokenwire_client import AsyncClient, Policy, RefusedError, RunFailedError

TOKENS = 110


@pytest.mark.asyncio
@pytest.mark.parametrize("kept", [True, False], ids=["with its data", "without its data"])
async def test_streams_go_on_over_a_kill_of_redis(
    home: Home, redis: RedisServer, durable_redis: RedisServer, kept: bool
) -> None:
    server = durable_redis if kept else redis
    async with replicas(home, server, hold=60) as place, place.a.client() as here, place.b.client() as there:
        async with reading(here.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.reads(60)
            async with reading(there.attach, reader.run_id) as other:
                await other.reads(60)
                server.kill()
                await place.one.release()
                # Whoever reads where it is written goes on at once.
                await whole(reader, PROMPT, TOKENS)
                server.start()
                await whole(other, PROMPT, TOKENS)
            assert not reader.failures
            assert reader.ways == other.ways == ["FIRST"]
        # Later readers find it, at both.
        for client in (here, there):
            async with client.attach(reader.run_id) as stream:
                assert (await stream.result()).text == expected(PROMPT, TOKENS)


@pytest.mark.asyncio
async def test_runs_begin_while_redis_is_down_and_are_known_elsewhere_later(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis, hold=60) as place, place.a.client() as here, place.b.client() as there:
        redis.kill()
        async with reading(here.stream, PROMPT, max_tokens=TOKENS, request_id="mine") as reader:
            await reader.reads(60)
            async with AsyncClient(place.b.address, policy=Policy(attempts=0)) as once:
                with pytest.raises(RefusedError) as refused:
                    await once.get(reader.run_id)
            assert (refused.value.code.name, refused.value.reason) == ("UNAVAILABLE", "JOURNAL_UNAVAILABLE")
            redis.start()
            async with reading(there.attach, reader.run_id) as other:
                await other.reads(60)
                await place.one.release()
                await whole(other, PROMPT, TOKENS)
            await whole(reader, PROMPT, TOKENS)
        assert (await place.two.counts())["started"] == 0


@pytest.mark.asyncio
async def test_with_the_other_policy_runs_end_when_redis_is_lost(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis, journal_outage="fail") as place, place.a.client() as here:
        async with reading(here.stream, PROMPT, max_tokens=8000) as reader:
            await reader.reads(30)
            redis.kill()
            error = await reader.failed()
        assert isinstance(error, RunFailedError)
        assert (error.code.name, error.reason) == ("DATA_LOSS", "JOURNAL_UNAVAILABLE")
        assert error.text == reader.text
        assert expected(PROMPT, 8000).startswith(error.text)
        await place.one.idle()
        # P10: the next request waits for Redis, and is answered.
        async with reading(here.stream, PROMPT, max_tokens=TOKENS) as later:
            await later.comes(lambda: bool(later.failures))
            assert later.failures[0].reason == "JOURNAL_UNAVAILABLE"
            redis.start()
            await whole(later, PROMPT, TOKENS)


@pytest.mark.asyncio
async def test_redis_and_the_writing_gateway_killed_at_once_is_said_to_be_a_loss(
    home: Home, redis: RedisServer
) -> None:
    async with replicas(home, redis) as place, place.b.client() as there:
        async with reading(place.client.stream, PROMPT, max_tokens=8000) as reader:
            await reader.reads(30)
            place.a.kill()
            redis.kill()
            redis.start()
            place.move()
            error = await reader.failed()
            assert isinstance(error, RefusedError)
            assert (error.code.name, error.reason) == ("DATA_LOSS", "JOURNAL_LOST")
            assert error.text == reader.text
            with pytest.raises(RefusedError) as lost:
                await there.wait(reader.run_id)
            assert (lost.value.code.name, lost.value.reason) == ("DATA_LOSS", "JOURNAL_LOST")
        await place.one.idle()
        assert (await there.generate(PROMPT, max_tokens=TOKENS)).text == expected(PROMPT, TOKENS)


@pytest.mark.asyncio
async def test_a_gateway_that_is_cut_off_from_redis_is_replaced_and_says_what_was_lost(
    home: Home, redis: RedisServer
) -> None:
    async with fault_proxy(redis.port) as line:
        url = f"redis://127.0.0.1:{line.port}/0"
        async with (
            replicas(home, redis, hold=60, url=url) as place,
            place.a.client() as here,
            place.b.client() as there,
            reading(here.stream, PROMPT, max_tokens=TOKENS) as reader,
        ):
            await reader.reads(60)
            async with reading(there.attach, reader.run_id) as other:
                await other.reads(60)
                hole = line.black_hole()
                # It cannot know that it has been replaced, and tells its reader all the rest.
                await place.one.release()
                await whole(reader, PROMPT, TOKENS)
                await whole(other, PROMPT, TOKENS)
            assert hole.swallowed
            assert reader.ways == ["FIRST"]
            assert [one.engine for one in other.dispatched] == ["one", "two"]
            with pytest.raises(RefusedError) as lost:
                async with there.attach(reader.run_id, after=reader.cursor) as stream:
                    await stream.result()
            assert (lost.value.code.name, lost.value.reason) == ("DATA_LOSS", "JOURNAL_LOST")


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["slices", "delay", "garbage", "cut"])
async def test_a_bad_line_to_redis_loses_nothing(home: Home, redis: RedisServer, kind: str) -> None:
    async with fault_proxy(redis.port) as line:
        url = f"redis://127.0.0.1:{line.port}/0"
        async with replicas(home, redis, hold=80, url=url, lease_seconds="5") as place, place.a.client() as here:
            match kind:
                case "slices":
                    line.add(Slices(1))
                case "delay":
                    line.add(Delay(0.02))
                case "garbage":
                    line.add(Garbage(200, b"+who knows\r\n:1\r\n\x00\xff", times=3))
                    await line.cut()
            async with place.b.client() as there, reading(here.stream, PROMPT, max_tokens=TOKENS) as reader:
                await reader.reads(20)
                async with reading(there.attach, reader.run_id) as other:
                    if kind == "cut":
                        for at in (30, 50, 70):
                            await reader.reads(at)
                            await line.cut()
                    await place.one.release()
                    await whole(reader, PROMPT, TOKENS)
                    await whole(other, PROMPT, TOKENS)
                assert reader.ways == ["FIRST"]
