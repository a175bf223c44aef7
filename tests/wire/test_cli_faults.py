"""`tokenwire generate` on a line that breaks, and against a server that breaks its promises."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from harness.command_line import begun, on_terminal, outcome, tokenwire
from harness.fault_proxy import fault_proxy
from harness.service import service
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import ScriptedEngine, Step, WaitFor, words
from tokenwire.v1.event_pb2 import Delta, Event
from wire.test_client_faults import HALF, START, end, scripted


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([START, HALF], "without its `end` event"),
        ([START, HALF, end("Half")], "its SHA-256 differs"),
        ([START, HALF, end("half", 9)], "4 of 9 bytes were received"),
        (
            [START, HALF, Event(delta=Delta(text="more", byte_offset=5)), end("half")],
            "text at byte 5 came after byte 4",
        ),
    ],
    ids=["no end", "other text", "missing text", "gap"],
)
async def test_a_stream_that_is_not_whole_is_an_error(events: list[Event], said: str) -> None:
    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        for event in events:
            yield event

    async with scripted(script) as (target, _):
        done = await tokenwire("generate", "hi", "--target", target)
    assert (done.code, done.out) == (2, "half")
    assert said in done.err


@pytest.mark.asyncio
async def test_a_connection_that_stays_broken_says_how_to_go_on() -> None:
    async def script(context: Any, call: int) -> AsyncIterator[Event]:
        if call == 0:
            yield START
            yield HALF
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async with scripted(script) as (target, requests):
        done = await tokenwire("generate", "hi", "--retries", "2", "--target", target)
        assert len(requests) == 3
        as_json = await tokenwire("generate", "hi", "--retries", "0", "--json", "--target", target)
    assert (done.code, done.out) == (2, "half")
    assert done.err.startswith("tokenwire: the connection to the server broke; going on\ntokenwire: UNAVAILABLE: ")
    assert "tokenwire runs attach run_1 --after '{\"seq\":2}'" in done.err
    assert (as_json.code, as_json.err) == (2, "")
    assert json.loads(as_json.out.splitlines()[-1])["error"]["code"] == "UNAVAILABLE"


class Halves:
    """An engine that writes one half of its answer, and the other when it is told."""

    def __init__(self) -> None:
        self.going_on = asyncio.Event()
        self.engine = ScriptedEngine(script=self._script)

    def _script(self, job: Job) -> list[Step]:
        return [words("one half")[0], words("one half")[1], WaitFor(self.going_on), *words(", the other")]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("flags", "said"),
    [([], "tokenwire: the connection to the server broke; going on\n"), (["--quiet"], ""), (["--json"], "")],
)
async def test_a_broken_line_is_taken_up_again_and_the_output_is_whole(flags: list[str], said: str) -> None:
    halves = Halves()
    async with (
        service(halves.engine) as running,
        fault_proxy(running.port) as proxy,
        begun("generate", "hi", *flags, "--target", f"127.0.0.1:{proxy.port}") as process,
    ):
        assert process.stdout is not None
        seen = await process.stdout.readuntil(b"half")
        await proxy.cut()
        halves.going_on.set()
        done = await outcome(process)
    assert (done.code, done.err) == (0, said)
    out = seen.decode() + done.out
    if "--json" in flags:
        events = [json.loads(line) for line in out.splitlines()]
        assert [next(iter(event)) for event in events].count("end") == 1
        out = "".join(event["delta"]["text"] for event in events if "delta" in event)
    assert out == "one half, the other"
    assert halves.engine.started == 1


@pytest.mark.asyncio
async def test_a_run_that_is_followed_is_taken_up_again() -> None:
    halves = Halves()
    async with (
        service(halves.engine) as running,
        fault_proxy(running.port) as proxy,
        begun("generate", "hi", "--request-id", "a", "--target", running.address) as first,
    ):
        assert first.stdout is not None
        await first.stdout.readuntil(b"half")
        async with begun("runs", "attach", "a", "--target", f"127.0.0.1:{proxy.port}") as process:
            assert process.stdout is not None
            await process.stdout.readuntil(b"half")
            await proxy.cut()
            halves.going_on.set()
            done = await outcome(process)
        await outcome(first)
    assert (done.code, done.out) == (0, ", the other")
    assert "going on" in done.err


@pytest.mark.asyncio
async def test_a_terminal_is_told_on_a_line_of_its_own() -> None:
    halves = Halves()
    async with (
        service(halves.engine) as running,
        fault_proxy(running.port) as proxy,
        on_terminal("generate", "hi", "--target", f"127.0.0.1:{proxy.port}") as terminal,
    ):
        await terminal.shows("one half")
        await proxy.cut()
        await terminal.shows("one half\ntokenwire: the connection to the server broke; going on\n")
        halves.going_on.set()
        assert await terminal.ended() == 0
    assert "going on\n, the other\n" in terminal.text
