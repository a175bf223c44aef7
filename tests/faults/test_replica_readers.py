"""Readers at one gateway of a run that another one writes."""

import asyncio

import pytest

from faults.processes import Home
from faults.reading import PROMPT, reading, whole
from faults.replicas import replicas
from harness.redis_server import RedisServer
from harness.waiting import until
from tokenwire.v1.finish_pb2 import FINISH_REASON_CANCELLED
from tokenwire_client import RunFailedError
from tokenwire_client.core.options import Options

TOKENS = 110
ENDLESS = 8000


@pytest.mark.asyncio
async def test_a_reader_elsewhere_keeps_a_run_alive(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis, hold=60) as place, place.b.client() as there:
        first = home.client(place.a.address, PROMPT, TOKENS, grace=0.0, request_id="mine")
        first.start()
        await until(lambda: bool(first.text), "it reads")
        async with reading(there.attach, request_id="mine") as reader:
            await reader.reads(60)
            first.kill()
            # It is said, asked, and answered: nothing of it can be seen from here but that the run goes on.
            await there.get(reader.run_id)
            await place.one.release()
            await whole(reader, PROMPT, TOKENS)
        assert not reader.failures
        assert reader.ways == ["FIRST"]


@pytest.mark.asyncio
async def test_the_last_reader_leaving_elsewhere_stops_the_engine(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis) as place, place.a.client() as here, place.b.client() as there:
        first = home.client(place.a.address, PROMPT, ENDLESS, grace=0.0, request_id="mine")
        first.start()
        await until(lambda: bool(first.text), "it reads")
        async with reading(there.attach, request_id="mine") as reader:
            await reader.reads(20)
            first.kill()
            await reader.reads(reader.tokens + 50)
        await place.one.idle()
        with pytest.raises(RunFailedError) as failed:
            await here.wait(request_id="mine")
        assert failed.value.reason == "ORPHANED"


@pytest.mark.asyncio
async def test_a_cancel_elsewhere_stops_the_engine(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis) as place, place.b.client() as there:
        async with reading(place.client.stream, PROMPT, max_tokens=ENDLESS) as reader:
            await reader.reads(20)
            await there.cancel(reader.run_id)
            await place.one.idle()
            end = await reader.finished()
        assert end.choices[0].finish_reason == FINISH_REASON_CANCELLED
        async with there.attach(reader.run_id) as stream:
            assert (await stream.result()).text == reader.text


@pytest.mark.asyncio
async def test_one_request_id_at_two_gateways_at_once_is_one_run(home: Home, redis: RedisServer) -> None:
    async with replicas(home, redis) as place, place.a.client() as here, place.b.client() as there:
        asked: Options = {"max_tokens": 40, "request_id": "mine"}
        answers = await asyncio.gather(*(one.generate(PROMPT, **asked) for one in (here, there) * 3))
        assert len({one.run_id for one in answers}) == 1
        assert len({one.text for one in answers}) == 1
        started = [(await one.counts())["started"] for one in (place.one, place.two)]
        assert sum(started) == 1
