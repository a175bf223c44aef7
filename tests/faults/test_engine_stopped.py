"""SIGSTOP of an engine: its connections stay open, and nothing comes."""

import signal

import pytest

from faults.processes import Home, stopped
from faults.reading import PROMPT, reading, whole

TOKENS = 110


@pytest.mark.asyncio
async def test_a_frozen_engine_is_gone_on_for_and_does_no_harm_when_it_wakes(home: Home) -> None:
    one, two = home.engine(hold=60), home.engine()
    gateway = home.gateway({"one": one, "two": two}, stall_seconds="0.4")
    await home.start(one, two, gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(60)
        with stopped(one):
            await whole(reader, PROMPT, TOKENS)
        assert reader.ways == ["FIRST", "BY_TOKENS"]
        assert [one.engine for one in reader.dispatched] == ["one", "two"]
        # It wakes, and hears that nobody wants it any more.
        await one.idle()
        await two.idle()
        await one.release()
        async with client.attach(reader.run_id) as stream:
            assert (await stream.result()).text == reader.text


@pytest.mark.asyncio
async def test_an_engine_that_is_frozen_for_less_than_the_limit_goes_on_itself(home: Home) -> None:
    one, two = home.engine(hold=40), home.engine()
    gateway = home.gateway({"one": one, "two": two}, stall_seconds="20")
    await home.start(one, two, gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(40)
        with stopped(one):
            await client.get(reader.run_id)
            assert not reader.over
        await one.release()
        await whole(reader, PROMPT, TOKENS)
    assert reader.ways == ["FIRST"]
    assert (await two.counts())["started"] == 0


@pytest.mark.asyncio
async def test_an_engine_that_is_frozen_before_its_first_token_is_left_for_another(home: Home) -> None:
    one, two = home.engine(hold=0), home.engine()
    gateway = home.gateway({"one": one, "two": two}, first_token_seconds="0.4")
    await home.start(one, two, gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await one.busy()
        one.send(signal.SIGSTOP)
        await whole(reader, PROMPT, TOKENS)
        assert reader.ways == ["FIRST", "FIRST"]
    one.send(signal.SIGCONT)
    await one.idle()
