"""Faults on the line between the client and the gateway."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from faults.engine import expected
from faults.processes import QUICK, EngineProcess, Gateway, Home
from faults.reading import PROMPT, reading, whole
from harness.fault_proxy import FaultProxy, fault_proxy
from harness.line_faults import Bandwidth, Cut, Delay, Garbage, LineFault, Slices, Way
from tokenwire_client import AsyncClient, IntegrityError, Policy

TOKENS = 110


@asynccontextmanager
async def behind_a_proxy(
    home: Home, policy: Policy = QUICK, hold: int | None = None, **settings: str
) -> AsyncIterator[tuple[EngineProcess, Gateway, FaultProxy, AsyncClient]]:
    """Starts an engine and a gateway, and a proxy between that and a client."""
    engine = home.engine(hold=hold)
    gateway = home.gateway({"one": engine}, **settings)
    await home.start(engine, gateway)
    async with fault_proxy(gateway.port) as proxy, AsyncClient(proxy.address, policy=policy) as client:
        yield engine, gateway, proxy, client


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fault",
    [lambda: Delay(0.02), lambda: Slices(1), lambda: Bandwidth(20_000)],
    ids=["delay", "one byte at a time", "bandwidth"],
)
async def test_a_slow_line_brings_everything_in_one_call(home: Home, fault: Callable[[], LineFault]) -> None:
    async with behind_a_proxy(home) as (engine, _, proxy, client):
        proxy.add(fault())
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await whole(reader, PROMPT, TOKENS)
        assert not reader.failures
        await engine.idle()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("at", "way"),
    [(0, Way.DOWN), (640, Way.DOWN), (30, Way.UP), (250, Way.UP)],
)
async def test_lines_that_are_cut_at_a_byte_again_and_again_lose_nothing(home: Home, at: int, way: Way) -> None:
    async with behind_a_proxy(home) as (engine, _, proxy, client):
        cut = proxy.add(Cut(at, way, times=3))
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await whole(reader, PROMPT, TOKENS)
        assert cut.fired
        assert reader.failures
        assert all(one.broken for one in reader.failures)
        assert reader.ways == ["FIRST"]
        assert (await engine.counts())["started"] == 1


@pytest.mark.asyncio
async def test_a_line_that_goes_dead_without_a_word_is_left_for_a_new_one(home: Home) -> None:
    policy = Policy(first_wait=0.02, longest_wait=0.2, attempts=1000, silence=0.8)
    async with behind_a_proxy(home, policy, 40, heartbeat_seconds="0.2") as (engine, _, proxy, client):
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.reads(40)
            hole = proxy.black_hole()
            await engine.release()
            await reader.comes(lambda: bool(reader.failures))
            # The old connection is known to be dead by now.
            proxy.mend()
            await whole(reader, PROMPT, TOKENS)
        assert hole.swallowed
        # By the client's own limit, or by that of its connection.
        assert reader.failures[0].broken
        assert (await engine.counts())["started"] == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(("at", "way"), [(0, Way.DOWN), (700, Way.DOWN), (200, Way.UP)])
async def test_garbage_breaks_a_line_and_never_becomes_text(
    home: Home, caplog: pytest.LogCaptureFixture, at: int, way: Way
) -> None:
    # What follows garbage may be taken for the beginning of something long, which never comes.
    policy = Policy(first_wait=0.02, longest_wait=0.2, attempts=1000, silence=0.8, leave=0.5)
    async with behind_a_proxy(home, policy, heartbeat_seconds="0.2") as (engine, gateway, proxy, client):
        proxy.add(Garbage(at, b"\x00\xff" * 60, way, times=2))
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.ended()
        if reader.error is None:
            await whole(reader, PROMPT, TOKENS)
            assert reader.failures
            assert (await engine.counts())["started"] == 1
        else:
            # Inside of a message: it is no message any more, and the client says so.
            assert isinstance(reader.error, IntegrityError)
            assert way is Way.DOWN
            assert expected(PROMPT, TOKENS).startswith(reader.error.text)
        proxy.mend()
        assert (await client.generate(PROMPT, max_tokens=TOKENS)).text == expected(PROMPT, TOKENS)
        assert gateway.alive
    # grpc logs what it cannot read, and the record holds its call.
    caplog.clear()


@pytest.mark.asyncio
async def test_all_lines_cut_at_once_again_and_again_break_no_stream(home: Home) -> None:
    prompts = [f"{PROMPT} {number}" for number in range(3)]
    async with behind_a_proxy(home, hold=60) as (engine, _, proxy, client):
        async with (
            reading(client.stream, prompts[0], max_tokens=TOKENS) as one,
            reading(client.stream, prompts[1], max_tokens=TOKENS) as two,
            reading(client.stream, prompts[2], max_tokens=TOKENS, n=3) as three,
        ):
            readers = (one, two, three)
            for at in (10, 30, 50):
                for reader in readers:
                    await reader.reads(at)
                await proxy.cut()
            await engine.release()
            await whole(one, prompts[0], TOKENS)
            await whole(two, prompts[1], TOKENS)
            await whole(three, prompts[2], TOKENS, 3)
        assert all(reader.failures for reader in readers)
        assert proxy.cuts
        assert (await engine.counts())["started"] == 3
        await engine.idle()
