"""kill -9 of one of several gateways that share a journal in Redis: another one takes its runs over."""

import signal
from contextlib import AsyncExitStack

import pytest

from faults.engine import expected
from faults.processes import Home
from faults.reading import PROMPT, Reader, reading, whole
from faults.replicas import replicas
from harness.redis_server import RedisServer

TOKENS = 110


@pytest.mark.asyncio
async def test_another_gateway_goes_on_with_the_runs_of_one_that_was_killed(home: Home, redis: RedisServer) -> None:
    prompts = [f"{PROMPT} {number}" for number in range(4)]
    async with replicas(home, redis, hold=40) as place, AsyncExitStack() as stack:
        readers: list[Reader] = []
        for number, prompt in enumerate(prompts):
            asked = reading(place.client.stream, prompt, max_tokens=TOKENS, n=1 + number % 2)
            readers.append(await stack.enter_async_context(asked))
        for reader in readers:
            await reader.reads(30)
        place.a.kill()
        place.move()
        for number, (prompt, reader) in enumerate(zip(prompts, readers, strict=True)):
            await whole(reader, prompt, TOKENS, 1 + number % 2)
            assert [one.engine for one in reader.dispatched] == ["one", "two"]
            assert reader.ways[0] == "FIRST"
            assert reader.failures
        assert not place.a.alive
        await place.one.idle()
        await place.two.idle()


@pytest.mark.asyncio
async def test_a_reader_elsewhere_sees_nothing_of_a_kill_but_another_engine(home: Home, redis: RedisServer) -> None:
    async with (
        replicas(home, redis, hold=40) as place,
        place.b.client() as there,
        reading(place.client.stream, PROMPT, max_tokens=TOKENS) as reader,
    ):
        await reader.reads(5)
        async with reading(there.attach, reader.run_id) as other:
            await other.reads(30)
            place.a.kill()
            await whole(other, PROMPT, TOKENS)
            assert not other.failures
            assert [one.engine for one in other.dispatched] == ["one", "two"]
        place.move()
        await whole(reader, PROMPT, TOKENS)
        assert reader.joints == other.joints


@pytest.mark.asyncio
async def test_another_client_goes_on_at_the_other_gateway_after_a_cursor(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis, hold=40) as place, place.b.client() as there:
        async with reading(place.client.stream, PROMPT, max_tokens=TOKENS, request_id="mine") as reader:
            await reader.reads(40)
            place.a.kill()
            text, cursor = reader.text, reader.cursor
        async with there.attach(request_id="mine", after=cursor) as rest:
            assert text + (await rest.result()).text == expected(PROMPT, TOKENS)
        # The request id names the run there, too.
        assert (await there.generate(PROMPT, max_tokens=TOKENS, request_id="mine")).text == expected(PROMPT, TOKENS)
        assert (await place.two.counts())["started"] == 1


@pytest.mark.asyncio
async def test_a_gateway_killed_before_the_first_token_loses_no_request(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis, hold=0) as place:
        async with reading(place.client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.comes(lambda: bool(reader.dispatched))
            place.a.kill()
            place.move()
            await whole(reader, PROMPT, TOKENS)
        assert reader.ways == ["FIRST", "FIRST"]
        await place.one.idle()


@pytest.mark.asyncio
async def test_a_gateway_that_drains_hands_its_runs_over_at_once(home: Home, redis: RedisServer) -> None:
    # Nobody could wait for this lease.
    async with replicas(home, redis, hold=40, lease_seconds="60") as place:
        async with reading(place.client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.reads(30)
            place.move()
            place.a.send(signal.SIGTERM)
            await whole(reader, PROMPT, TOKENS)
        assert await place.a.ended() == 0
        assert reader.failures[0].reason == "DRAINING"
        assert [one.engine for one in reader.dispatched] == ["one", "two"]
        await place.one.idle()


@pytest.mark.asyncio
async def test_when_all_gateways_are_killed_the_first_one_back_goes_on(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis, hold=40) as place:
        async with reading(place.client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.reads(40)
            place.a.kill()
            place.b.kill()
            await place.one.release()
            place.a.start()
            await whole(reader, PROMPT, TOKENS)
        assert [one.engine for one in reader.dispatched] == ["one", "one"]
        await place.one.idle()
