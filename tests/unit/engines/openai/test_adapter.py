"""What the adapter generates from a server that sends what the test says."""

import asyncio
import random
from contextlib import aclosing

import pytest

from harness.telling import told_by
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Job, Piece, Prompt, Totals
from tokenwire.domain.request import Logprobs, Message, Output, Role, Sampling, Stopping, Submission
from tokenwire.engines.engine import Engine
from tokenwire.engines.openai.adapter import OpenAIEngine
from unit.engines import captures
from unit.engines.openai.replay import Told
from unit.engines.openai.running import engine_at, running
from unit.engines.scripted_http import (
    LAST_CHUNK,
    STREAM_HEAD,
    Exchange,
    always,
    chunk,
    reply,
    serving,
)

COMPLETION = Submission(prompt="hi")
CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))
FIRST = b'data: {"choices":[{"text":"a"}]}\n\n'
ENDED = ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH)


def _job(submission: Submission = COMPLETION) -> Job:
    return Job(run_id="r", model="m", submission=submission, prompt=Prompt(text=submission.prompt))


async def _told(engine: OpenAIEngine, submission: Submission = COMPLETION) -> Told:
    told = Told()
    try:
        async with aclosing(told_by(engine, _job(submission))) as reads:
            async for batch in reads:
                assert batch
                told.add(batch)
    except EngineError as error:
        told.failure = error.reason
    return told


def _stream(body: bytes) -> bytes:
    return STREAM_HEAD + chunk(body) + LAST_CHUNK


@pytest.mark.asyncio
async def test_it_is_an_engine() -> None:
    engine: Engine = engine_at("http://127.0.0.1:1")
    assert (engine.name, engine.kind, engine.tokenizer, engine.default_max_tokens) == ("e", "openai", None, None)
    await engine.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_a_generate_streams_from_the_completions_endpoint(suffix: str) -> None:
    body = captures.body("vllm", "11-completions-stream-usage.resp")
    async with serving(always(_stream(body))) as server:
        engine = engine_at(server.url + suffix, api_key="secret")
        try:
            told = await _told(engine)
        finally:
            await engine.close()
        assert told.texts == {Channel(): " Paris.\n\nThe answer"}
        assert told.totals == Totals(prompt_tokens=5, cached_tokens=0, output_tokens=6)
        request = server.requests[0]
        assert (request.path, request.json["prompt"], request.json["model"]) == ("/v1/completions", "hi", "m")
        assert request.json["stream_options"] == {"include_usage": True}
        assert request.headers["authorization"] == "Bearer secret"


@pytest.mark.asyncio
async def test_a_chat_streams_from_the_chat_endpoint() -> None:
    body = captures.body("sglang", "chat_stream_full.txt")
    async with running(always(_stream(body))) as (engine, server):
        told = await _told(engine, CHAT)
        assert told.texts == {Channel(): "Hello there! I"}
        assert server.requests[0].path == "/v1/chat/completions"
        assert server.requests[0].json["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.asyncio
async def test_a_stream_in_random_slices_tells_the_same() -> None:
    body = captures.body("vllm", "45-chat-stream-n2.resp")
    dice = random.Random(7)

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        at = 0
        while at < len(body):
            size = dice.choice([1, 2, 7, 300])
            await exchange.write(chunk(body[at : at + size]))
            at += size
        await exchange.write(LAST_CHUNK)

    async with running(script) as (engine, _):
        told = await _told(engine, Submission(messages=CHAT.messages, sampling=Sampling(n=2)))
        assert told.texts == {Channel(0): "Alles", Channel(1): "Enchant"}
        assert told.failure is None


@pytest.mark.asyncio
async def test_one_read_is_one_list_and_text_goes_before_its_end() -> None:
    body = captures.body("sglang", "cmpl_stream_nousage.txt")
    async with running(always(_stream(body))) as (engine, _):
        async with aclosing(told_by(engine, _job())) as reads:
            batches = [batch async for batch in reads]
        assert batches == [[Piece(channel=Channel(), text=" Paris"), Piece(channel=Channel(), text="."), ENDED]]


@pytest.mark.asyncio
async def test_closing_the_generator_closes_the_connection() -> None:
    hung_up = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(FIRST))
        await exchange.hung_up()
        hung_up.set()

    async with running(script) as (engine, _):
        reads = told_by(engine, _job())
        assert await anext(reads) == [Piece(channel=Channel(), text="a")]
        await reads.aclose()
        await hung_up.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("before", [b"", STREAM_HEAD])
async def test_a_cancel_before_the_first_text_closes_the_connection(before: bytes) -> None:
    arrived, hung_up = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(before)
        arrived.set()
        await exchange.hung_up()
        hung_up.set()

    async with running(script) as (engine, _):
        generating = asyncio.create_task(_told(engine))
        await arrived.wait()
        generating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await generating
        await hung_up.wait()


@pytest.mark.asyncio
async def test_the_end_does_not_wait_for_the_engine_to_hang_up() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(b'data: {"choices":[{"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'))
        await exchange.hung_up()

    async with running(script) as (engine, server):
        assert await _told(engine) == Told(ends=[ENDED])
        await server.until_open(0)


@pytest.mark.asyncio
async def test_text_that_comes_with_a_failure_is_told_before_it() -> None:
    body = FIRST + b'data: {"error":{"message":"x","code":500}}\n\ndata: [DONE]\n\n'
    async with running(always(_stream(body))) as (engine, _):
        assert await _told(engine) == Told(texts={Channel(): "a"}, failure="ENGINE_FAILED")


@pytest.mark.asyncio
async def test_a_stream_without_its_terminator_is_a_failure() -> None:
    body = captures.body("vllm", "11-completions-stream-usage.resp").removesuffix(b"data: [DONE]\n\n")
    async with running(always(_stream(body))) as (engine, _):
        told = await _told(engine)
        assert (told.ends, told.totals, told.failure) == ([ENDED], None, "ENGINE_LOST")


@pytest.mark.asyncio
async def test_a_refusal_has_its_code() -> None:
    status, body = captures.errors("vllm")["90-err-stream-unknown-model"]
    async with running(always(reply(status, body))) as (engine, _):
        with pytest.raises(EngineError) as caught:
            await anext(told_by(engine, _job()))
        assert (caught.value.code, caught.value.reason) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")


@pytest.mark.asyncio
async def test_what_the_engine_would_refuse_is_vetted() -> None:
    engine = engine_at("http://127.0.0.1:1")
    with pytest.raises(InvalidRequestError):
        engine.vet(Submission(prompt="hi", stopping=Stopping(stop=tuple("abcde"))))
    engine.vet(COMPLETION)
    await engine.close()


@pytest.mark.asyncio
async def test_log_probabilities_that_were_asked_for_are_told() -> None:
    body = captures.body("vllm", "14-completions-stream-logprobs.resp")
    async with running(always(_stream(body))) as (engine, server):
        asked = Submission(prompt="hi", output=Output(logprobs=Logprobs(top_n=1)))
        told = await _told(engine, asked)
        assert server.requests[0].json["logprobs"] == 1
        first, second = told.logprobs[Channel()]
        assert (first.token_id, first.token, first.logprob) == (None, " Paris", -0.2692539393901825)
        assert [one.token for one in (*first.top, *second.top)] == [" Paris", "."]
        assert not (await _told(engine)).logprobs
