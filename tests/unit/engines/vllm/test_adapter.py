"""What the adapter asks of a server, and what it does when nobody listens any more."""

import asyncio
import json
from typing import Any

import pytest

from harness.telling import told_by
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Piece, Totals
from tokenwire.domain.request import (
    BeamSearch,
    Constraint,
    Logprobs,
    Message,
    Output,
    Role,
    Sampling,
    Stopping,
    Submission,
)
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState, Load, ModelInfo
from tokenwire.engines.vllm.server import Server
from unit.engines import captures
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, Script, always, chunk, reply
from unit.engines.vllm.running import job, running, stream, told

PROMPT = Submission(prompt="hi")
CHAT = Submission(messages=(Message(role=Role.USER, content="hi"),))
FIRST = b'data: {"choices":[{"text":"a","token_ids":[1]}]}\n\n'
ABORTED = reply(200, b'{"status":"aborted","aborted":1}')


@pytest.mark.asyncio
async def test_it_is_an_engine_with_a_tokenizer() -> None:
    async with running(always(b"")) as (engine, _):
        as_engine: Engine = engine
        assert (as_engine.kind, as_engine.default_max_tokens) == ("vllm", None)
        assert as_engine.tokenizer is not None
        with pytest.raises(InvalidRequestError):
            as_engine.vet(Submission(prompt="hi", stopping=Stopping(max_tokens=1, min_tokens=2)))
        engine.server = Server(rust=True, tags=False)
        with pytest.raises(InvalidRequestError):
            as_engine.vet(Submission(prompt="hi", constraint=Constraint(structural_tag="{}")))


@pytest.mark.asyncio
async def test_a_prompt_streams_from_the_completions_endpoint_with_a_request_id_of_its_own() -> None:
    body = captures.body("vllm", "sent-completion-stop-token.resp")
    async with running(always(stream(body))) as (engine, server):
        heard = await told(engine, Submission(prompt="hi", stopping=Stopping(stop_token_ids=(30,))))
        assert heard.ends == [ChoiceDone(choice=0, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=30)]
        assert heard.totals == Totals(prompt_tokens=5, cached_tokens=0, output_tokens=2)
        await told(engine, PROMPT)
        first, second = server.requests
        assert first.path == "/v1/completions"
        assert first.json["request_id"] != second.json["request_id"]


@pytest.mark.asyncio
async def test_a_chat_streams_from_the_chat_endpoint() -> None:
    body = captures.body("vllm", "sent-chat-named-tool.resp")
    async with running(always(stream(body))) as (engine, server):
        assert (await told(engine, CHAT)).failure is None
        assert server.requests[0].path == "/v1/chat/completions"


@pytest.mark.asyncio
async def test_a_full_window_is_told() -> None:
    ids = json.dumps([1] * 4095)
    body = f'data: {{"choices":[{{"text":"a","finish_reason":"length","token_ids":[1],"prompt_token_ids":{ids}}}]}}\n\n'
    async with running(always(stream(body.encode() + b"data: [DONE]\n\n"))) as (engine, _):
        assert (await told(engine, PROMPT)).ends[0].finish_reason is FinishReason.CONTEXT_LENGTH


@pytest.mark.asyncio
async def test_comments_are_no_progress() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        for _ in range(3):
            await exchange.write(chunk(b": keepalive\n\n"))
        await exchange.write(
            chunk(b'data: {"choices":[{"text":"a","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n') + LAST_CHUNK
        )

    async with running(script) as (engine, _):
        batches = [batch async for batch in told_by(engine, job(PROMPT))]
        assert all(batches)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", [name for name in captures.errors("vllm") if name.startswith(("69", "90-err-"))])
async def test_every_captured_refusal_is_an_error_before_the_first_text(name: str) -> None:
    status, body = captures.errors("vllm")[name]
    async with running(always(reply(status, body))) as (engine, _):
        with pytest.raises(EngineError) as caught:
            await anext(told_by(engine, job(PROMPT)))
        if status == 400:
            assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.asyncio
async def test_more_log_probabilities_than_the_server_allows_are_refused_by_name() -> None:
    status, body = captures.errors("vllm")["90-err-logprobs-99"]
    cases = [
        (Submission(prompt="hi", output=Output(logprobs=Logprobs(all=True))), "output.logprobs"),
        # vLLM asks itself for as many as there are beams, twice.
        (Submission(prompt="hi", sampling=Sampling(beam_search=BeamSearch(width=50))), "sampling.beam_search.width"),
    ]
    async with running(always(reply(status, body))) as (engine, _):
        for submission, field in cases:
            with pytest.raises(EngineError) as caught:
                await anext(told_by(engine, job(submission)))
            assert caught.value.code is Code.INVALID_ARGUMENT
            assert [violation.field for violation in caught.value.violations] == [field]


def _unfinished(aborts: list[Any], answer: bytes, aborted: asyncio.Event) -> Script:
    async def script(exchange: Exchange) -> None:
        if exchange.path == "/abort_requests":
            aborts.append(exchange.json)
            await exchange.write(answer)
            aborted.set()
        else:
            await exchange.write(STREAM_HEAD + chunk(FIRST))
            await exchange.hung_up()

    return script


@pytest.mark.asyncio
@pytest.mark.parametrize(("submission", "engine_id"), [(PROMPT, "cmpl-{}-0"), (CHAT, "chatcmpl-{}")])
async def test_closing_the_generator_closes_the_connection_and_aborts_this_request_alone(
    submission: Submission, engine_id: str
) -> None:
    aborts: list[Any] = []
    aborted = asyncio.Event()
    async with running(_unfinished(aborts, ABORTED, aborted)) as (engine, server):
        reads = told_by(engine, job(submission))
        assert await anext(reads) == [Piece(channel=Channel(), text="a", token_ids=[1], token_count=1)]
        await reads.aclose()
        await aborted.wait()
        assert aborts == [{"request_ids": [engine_id.format(server.requests[0].json["request_id"])]}]


@pytest.mark.asyncio
@pytest.mark.parametrize(("submission", "engine_id"), [(PROMPT, "cmpl-{}"), (CHAT, "chatcmpl-{}")])
async def test_the_rust_front_end_has_other_ids(submission: Submission, engine_id: str) -> None:
    aborts: list[Any] = []
    aborted = asyncio.Event()
    async with running(_unfinished(aborts, ABORTED, aborted)) as (engine, server):
        engine.server = Server(rust=True)
        reads = told_by(engine, job(submission))
        await anext(reads)
        await reads.aclose()
        await aborted.wait()
        assert aborts == [{"request_ids": [engine_id.format(server.requests[0].json["request_id"])]}]


@pytest.mark.asyncio
async def test_a_cancel_aborts_too() -> None:
    aborts: list[Any] = []
    aborted, arrived = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        arrived.set()
        await _unfinished(aborts, ABORTED, aborted)(exchange)

    async with running(script) as (engine, _):
        generating = asyncio.create_task(told(engine, PROMPT))
        await arrived.wait()
        generating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await generating
        await aborted.wait()
        assert len(aborts) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        # Without the endpoint it is not asked again.
        (reply(404, b'{"detail":"Not Found"}'), 1),
        (reply(405, b'{"detail":"Method Not Allowed"}'), 1),
        (reply(500, b"{}"), 2),
        (ABORTED, 2),
    ],
)
async def test_a_server_without_the_endpoint_is_not_asked_again(answer: bytes, asked: int) -> None:
    aborts: list[Any] = []
    async with running(_unfinished(aborts, answer, asyncio.Event())) as (engine, _):
        for _ in range(2):
            reads = told_by(engine, job(PROMPT))
            await anext(reads)
            await reads.aclose()
            if engine._left:
                await asyncio.wait(engine._left)
        assert len(aborts) == asked


@pytest.mark.asyncio
async def test_what_ended_or_failed_or_has_other_ids_is_not_aborted() -> None:
    paths: list[str] = []
    searching = asyncio.Event()
    ending = b'data: {"choices":[{"text":"a","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    async def script(exchange: Exchange) -> None:
        paths.append(exchange.path)
        if exchange.json.get("use_beam_search"):
            searching.set()
            await exchange.hung_up()
        else:
            await exchange.write(stream(ending if len(paths) == 1 else FIRST))

    async with running(script) as (engine, _):
        reads = told_by(engine, job(PROMPT))
        await anext(reads)
        # All has been told, and nobody asked for more.
        await reads.aclose()
        assert (await told(engine, PROMPT)).failure == "ENGINE_LOST"
        beams = Submission(prompt="hi", sampling=Sampling(beam_search=BeamSearch(width=2)))
        generating = asyncio.create_task(told(engine, beams))
        await searching.wait()
        generating.cancel()
        await asyncio.wait((generating,))
        assert not engine._left
        assert paths == ["/v1/completions"] * 3


METRICS = reply(200, captures.body("vllm", "74-metrics.resp"), content_type="text/plain")


def _asked(**answers: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(answers[exchange.path.rpartition("/")[2]])

    return script


@pytest.mark.asyncio
async def test_a_check_asks_for_health_models_and_load() -> None:
    models = reply(200, captures.body("vllm", "72-models.resp").replace(b"smollm2", b"m"))
    async with running(_asked(health=reply(200, b""), models=models, metrics=METRICS)) as (engine, server):
        await engine.check()
        assert (engine.status.state, engine.status.models) == (EngineState.READY, (ModelInfo("m", 4096),))
        loads = [engine.status.load]
        assert [one.path for one in server.requests] == ["/health", "/v1/models", "/metrics"]
        server.script = _asked(health=reply(200, b""), models=models, metrics=reply(404, b""))
        await engine.check()
        loads.append(engine.status.load)
        assert loads == [Load(running=0, waiting=0), None]
        assert [one.path for one in server.requests[3:]] == ["/health", "/v1/models", "/metrics"]


@pytest.mark.asyncio
async def test_an_engine_that_is_not_healthy_is_unavailable() -> None:
    models = reply(200, captures.body("vllm", "72-models.resp"))
    async with running(_asked(health=reply(503, b""), models=models, metrics=METRICS)) as (engine, _):
        await engine.check()
        assert engine.status.state is EngineState.UNAVAILABLE
