"""SIGSTOP of one of several gateways: for longer than its lease, and for less."""

import signal

import pytest

from faults.processes import Home
from faults.reading import PROMPT, reading, whole
from faults.replicas import replicas
from harness.redis_server import RedisServer
from tokenwire_client import Policy

TOKENS = 110


@pytest.mark.asyncio
async def test_a_gateway_that_wakes_after_its_lease_writes_nothing_any_more(home: Home, redis: RedisServer) -> None:
    async with (
        replicas(home, redis, hold=60) as place,
        place.a.client() as here,
        place.b.client() as there,
        reading(here.stream, PROMPT, max_tokens=TOKENS) as reader,
    ):
        await reader.reads(60)
        async with reading(there.attach, reader.run_id) as other:
            await other.reads(60)
            place.a.send(signal.SIGSTOP)
            # All the rest of it lies in the sleeper's sockets, and would be written when it wakes.
            await place.one.release()
            await place.one.busy(0)
            await whole(other, PROMPT, TOKENS)
            assert not other.failures
            assert [one.engine for one in other.dispatched] == ["one", "two"]
        assert not reader.over
        place.a.send(signal.SIGCONT)
        await whole(reader, PROMPT, TOKENS)
        assert [one.reason for one in reader.failures] == ["MOVED"]
        # What comes after event 60 is what the other one wrote, from the same byte on.
        assert reader.joints == other.joints
        assert [one.engine for one in reader.dispatched] == ["one", "two"]
        async with reading(here.attach, reader.run_id) as again:
            await whole(again, PROMPT, TOKENS)
            assert again.joints == other.joints
        await place.one.idle()
        await place.two.idle()


@pytest.mark.asyncio
async def test_the_engine_of_a_gateway_that_lost_its_lease_is_stopped_when_it_wakes(
    home: Home, redis: RedisServer
) -> None:
    tokens = 4000
    async with (
        replicas(home, redis) as place,
        place.a.client() as here,
        place.b.client() as there,
        reading(here.stream, PROMPT, max_tokens=tokens) as reader,
    ):
        await reader.reads(20)
        async with reading(there.attach, reader.run_id) as other:
            place.a.send(signal.SIGSTOP)
            await other.comes(lambda: len(other.dispatched) == 2)
            await place.one.busy()
            place.a.send(signal.SIGCONT)
            await reader.comes(lambda: bool(reader.failures))
            await place.one.idle()
            assert [one.reason for one in reader.failures] == ["MOVED"]
            await place.two.busy()
            await here.cancel(reader.run_id)
            await reader.finished()
            await other.finished()
            assert reader.text == other.text
            assert reader.joints == other.joints
        await place.two.idle()


@pytest.mark.asyncio
async def test_a_gateway_frozen_for_less_than_its_lease_goes_on_itself(home: Home, redis: RedisServer) -> None:
    async with (
        replicas(home, redis, hold=40, lease_seconds="30") as place,
        place.a.client() as here,
        place.b.client() as there,
        reading(here.stream, PROMPT, max_tokens=TOKENS) as reader,
    ):
        await reader.reads(40)
        place.a.send(signal.SIGSTOP)
        await place.one.release()
        # The other one is asked, and knows no better.
        run = await there.get(reader.run_id)
        assert run.run_id == reader.run_id
        place.a.send(signal.SIGCONT)
        await whole(reader, PROMPT, TOKENS)
        assert reader.ways == ["FIRST"]
        assert not reader.failures
        assert (await place.two.counts())["started"] == 0


@pytest.mark.asyncio
async def test_a_client_of_a_frozen_gateway_hears_the_silence_and_finds_the_other(
    home: Home, redis: RedisServer
) -> None:
    policy = Policy(first_wait=0.02, longest_wait=0.2, attempts=1000, silence=0.8)
    async with replicas(home, redis, hold=40, policy=policy, heartbeat_seconds="0.2") as place:
        async with reading(place.client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.reads(30)
            place.move()
            place.a.send(signal.SIGSTOP)
            await reader.comes(lambda: bool(reader.failures))
            await whole(reader, PROMPT, TOKENS)
            assert [one.engine for one in reader.dispatched] == ["one", "two"]
        place.a.send(signal.SIGCONT)
        await place.one.idle()
