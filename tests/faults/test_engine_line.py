"""Faults on the line between the gateway and its engine."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from faults.processes import EngineProcess, Gateway, Home
from faults.reading import PROMPT, reading, whole
from harness.fault_proxy import FaultProxy, fault_proxy
from harness.line_faults import Bandwidth, Cut, Delay, Garbage, LineFault, Slices, Way

TOKENS = 110


@asynccontextmanager
async def behind_a_proxy(
    home: Home, hold: int | None = None, **settings: str
) -> AsyncIterator[tuple[EngineProcess, EngineProcess, FaultProxy, Gateway]]:
    """Starts two engines, a proxy before the first, and a gateway that prefers that one."""
    one, two = home.engine(hold=hold), home.engine()
    async with fault_proxy(one.port) as proxy:
        gateway = home.gateway({"one": f"vllm=http://{proxy.address}", "two": two}, **settings)
        await home.start(one, two, gateway)
        yield one, two, proxy, gateway
        # Its connections to the proxy end.
        gateway.kill()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fault",
    [lambda: Delay(0.005), lambda: Slices(1), lambda: Bandwidth(200_000)],
    ids=["delay", "one byte at a time", "bandwidth"],
)
async def test_a_slow_line_is_no_failure(home: Home, fault: Callable[[], LineFault]) -> None:
    async with behind_a_proxy(home) as (one, two, proxy, gateway), gateway.client() as client:
        proxy.add(fault())
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await whole(reader, PROMPT, TOKENS)
        assert reader.ways == ["FIRST"]
        assert (await two.counts())["started"] == 0
        await one.idle()


@pytest.mark.asyncio
# A chunk takes some 170 bytes; before them come the headers.
@pytest.mark.parametrize("at", [0, 1111, 9999])
async def test_a_line_that_is_cut_at_any_byte_is_gone_on_from_elsewhere(home: Home, at: int) -> None:
    async with behind_a_proxy(home) as (one, _, proxy, gateway), gateway.client() as client:
        # Not for the connection by which its health is asked for: that is there already.
        cut = proxy.add(Cut(at))
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await whole(reader, PROMPT, TOKENS)
        assert cut.fired
        assert len(reader.dispatched) >= 2
        assert not reader.failures
        await one.idle()


@pytest.mark.asyncio
async def test_a_request_that_is_cut_on_its_way_to_the_engine_is_sent_elsewhere(home: Home) -> None:
    async with behind_a_proxy(home) as (one, _, proxy, gateway), gateway.client() as client:
        proxy.add(Cut(200, Way.UP))
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await whole(reader, PROMPT, TOKENS)
        assert (await one.counts())["started"] == 0
        assert reader.ways == ["FIRST", "FIRST"]


@pytest.mark.asyncio
async def test_a_line_that_goes_dead_without_a_word_counts_as_a_dead_engine(home: Home) -> None:
    async with behind_a_proxy(home, hold=60, stall_seconds="0.4") as (one, _, proxy, gateway):
        async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await reader.reads(60)
            hole = proxy.black_hole()
            await one.release()
            await whole(reader, PROMPT, TOKENS)
        assert hole.swallowed
        assert reader.ways == ["FIRST", "BY_TOKENS"]
        # It cannot hear that it is to stop; but it writes no more than it was asked for.
        await one.idle()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("at", "garbage"),
    [
        (0, b"\x16\x03\x01\x02\x00"),
        (3000, b"\x00\xff\xfe" * 40),
        (3000, b'data: {"choices": [\n\n'),
        (3000, b"data: [1, 2]\n\n"),
        (3000, b"HTTP/1.1 500 Sorry\r\n\r\n"),
    ],
    ids=["no HTTP", "bytes", "half a chunk", "another chunk", "a status"],
)
async def test_what_no_engine_says_is_a_failure_and_never_text(home: Home, at: int, garbage: bytes) -> None:
    async with behind_a_proxy(home) as (one, _, proxy, gateway), gateway.client() as client:
        proxy.add(Garbage(at, garbage))
        # So that the run's connection is a new one.
        await proxy.cut()
        async with reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            await whole(reader, PROMPT, TOKENS)
        assert len(reader.dispatched) >= 2
        assert not reader.failures
        await one.idle()


@pytest.mark.asyncio
async def test_garbage_from_the_only_engine_is_a_typed_error_with_the_text_so_far(home: Home) -> None:
    engine = home.engine()
    async with fault_proxy(engine.port) as proxy:
        gateway = home.gateway({"one": f"vllm=http://{proxy.address}"}, failover_seconds="0.3")
        await home.start(engine, gateway)
        proxy.add(Garbage(3000, b"\x00\xff\xfe" * 40))
        async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
            error = await reader.failed()
        gateway.kill()
    assert (error.code.name, error.reason) in {("DATA_LOSS", "UPSTREAM_PROTOCOL"), ("DATA_LOSS", "ENGINE_LOST")}
    assert error.text == reader.text
