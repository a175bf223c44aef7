"""The engine against a server that sends what the test says; there is no child."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from harness.telling import told_by
from tokenwire.domain.context import Clock
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, Prompt
from tokenwire.domain.request import Message, ReasoningEffort, Role, Sampling, Stopping, Submission
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.engines.llamacpp.connection import Connection
from tokenwire.engines.llamacpp.template import ChatTemplate
from tokenwire.engines.status import EngineState
from unit.engines import captures
from unit.engines.scripted_http import (
    LAST_CHUNK,
    STREAM_HEAD,
    Exchange,
    Script,
    ScriptedServer,
    always,
    chunk,
    reply,
    serving,
)

TWO_CHOICES = Job(
    run_id="run",
    model="model",
    submission=Submission(prompt="The city", sampling=Sampling(n=2), stopping=Stopping(max_tokens=4)),
    prompt=Prompt(text="The city", token_ids=(504, 3575)),
)
EVENTS = captures.events(captures.body("llama-cpp", "native-n2-progress.txt"))


@asynccontextmanager
async def engine_on(script: Script, folder: Path) -> AsyncGenerator[tuple[LlamaCppEngine, ScriptedServer], None]:
    """Makes an engine that believes that the scripted server is its child."""
    clock = Clock(monotonic=time.monotonic, wall=time.time)
    engine = LlamaCppEngine(name="x", cache_dir=folder, log_dir=folder, clock=clock, rng=Random(1))
    async with serving(script) as server:
        connection = Connection(server.url, api_key="", connect_timeout=5.0, reply_timeout=5.0, wall=time.time)
        connection.vocabulary = 49_152
        engine._connection = connection
        engine._supervisor._up = True
        try:
            yield engine, server
        finally:
            await engine.close()


def stream(*events: bytes) -> bytes:
    return STREAM_HEAD + b"".join(chunk(event) for event in events) + LAST_CHUNK


async def collect(engine: LlamaCppEngine, into: list[Generated], job: Job = TWO_CHOICES) -> None:
    async with aclosing(told_by(engine, job)) as batches:
        async for batch in batches:
            into += batch


@pytest.mark.asyncio
async def test_a_stream_with_the_end_of_every_choice_ends_normally(tmp_path: Path) -> None:
    async with engine_on(always(stream(*EVENTS)), tmp_path) as (engine, server):
        generated: list[Generated] = []
        await collect(engine, generated)
        assert {item.choice for item in generated if isinstance(item, ChoiceDone)} == {0, 1}
        assert (server.requests[0].path, server.requests[0].json["n"]) == ("/completion", 2)


@pytest.mark.asyncio
async def test_a_stream_that_ends_without_the_end_of_a_choice_is_cut(tmp_path: Path) -> None:
    async with engine_on(always(stream(*EVENTS[:-1])), tmp_path) as (engine, _):
        generated: list[Generated] = []
        with pytest.raises(EngineError) as caught:
            await collect(engine, generated)
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "ENGINE_LOST")
    assert sum(isinstance(item, Piece) for item in generated) == 8


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"error":{"code":500,"message":"secret","type":"server_error"}}', "ENGINE_FAILED"),
        (b"{broken", "UPSTREAM_PROTOCOL"),
        (b'{"content":"\xff","stop":false}', "UPSTREAM_PROTOCOL"),
    ],
)
async def test_text_that_came_in_one_read_with_a_failure_is_told_before_it(
    tmp_path: Path, payload: bytes, reason: str
) -> None:
    async with engine_on(always(stream(b"".join(EVENTS[:3]) + b"data: " + payload + b"\n\n")), tmp_path) as (engine, _):
        generated: list[Generated] = []
        with pytest.raises(EngineError) as caught:
            await collect(engine, generated)
    assert caught.value.reason == reason
    assert "secret" not in str(caught.value)
    assert [item.text for item in generated if isinstance(item, Piece)] == [" of"]


@pytest.mark.asyncio
async def test_a_check_that_fails_makes_the_engine_unavailable_until_it_answers(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(reply(503, b"{}") if exchange.path == "/health" else stream(*EVENTS))

    async with engine_on(script, tmp_path) as (engine, _):
        states: list[EngineState] = []
        engine.status.watch(lambda: states.append(engine.status.state))
        engine.status.set(EngineState.READY)
        await engine.check()
        await collect(engine, [])
        assert states == [EngineState.READY, EngineState.UNAVAILABLE, EngineState.READY]


@pytest.mark.asyncio
async def test_a_request_is_vetted_by_what_is_known_of_the_model(tmp_path: Path) -> None:
    thinking = Submission(messages=(Message(role=Role.USER, content="a"),), reasoning=ReasoningEffort.NONE)
    unknown_stop = Submission(prompt="a", stopping=Stopping(stop_token_ids=(50_000,)))
    async with engine_on(always(b""), tmp_path) as (engine, _):
        assert engine._connection is not None
        engine._connection.template = ChatTemplate(thinks=True)
        refused: list[str] = []
        for submission in (thinking, unknown_stop, Submission(prompt="a", sampling=Sampling(n=99))):
            with pytest.raises(InvalidRequestError) as caught:
                engine.vet(submission)
            refused.append(caught.value.violations[0].field)
        assert refused == ["reasoning.effort", "stopping.stop_token_ids", "sampling.n"]


@pytest.mark.asyncio
async def test_before_there_is_a_child_only_what_no_child_takes_is_refused(tmp_path: Path) -> None:
    clock = Clock(monotonic=time.monotonic, wall=time.time)
    engine = LlamaCppEngine(name="x", cache_dir=tmp_path, log_dir=tmp_path, clock=clock, rng=Random(1))
    engine.vet(Submission(prompt="a", stopping=Stopping(stop_token_ids=(50_000,))))
    with pytest.raises(InvalidRequestError):
        engine.vet(Submission(prompt="a", sampling=Sampling(n=99)))
    await engine.close()


@pytest.mark.asyncio
async def test_a_stop_token_closes_the_stream_though_the_engine_writes_on(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.path == "/detokenize":
            await exchange.write(reply(200, b'{"content":" of"}'))
        else:
            await exchange.write(STREAM_HEAD + chunk(b"".join(EVENTS[:-1])))
            await exchange.hung_up()

    stopping = Stopping(max_tokens=4, stop_token_ids=(1005, 282))
    job = replace(TWO_CHOICES, submission=replace(TWO_CHOICES.submission, stopping=stopping))
    async with engine_on(script, tmp_path) as (engine, server):
        generated: list[Generated] = []
        await collect(engine, generated, job)
        assert [item.matched_stop for item in generated if isinstance(item, ChoiceDone)] == [282, 1005]
        await server.until_open(1)
