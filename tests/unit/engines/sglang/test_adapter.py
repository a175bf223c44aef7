"""One request from beginning to end: which endpoint, what is told, and what becomes of one that nobody wants."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from harness.telling import told_by
from harness.waiting import until
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece, PromptRead, Totals
from tokenwire.domain.request import Logprobs, Output, Sampling, Stopping, Submission
from tokenwire.engines.sglang.adapter import SglangEngine
from unit.engines import captures
from unit.engines.openai.replay import cuts
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, ScriptedServer, chunk, reply
from unit.engines.sglang.fields import CHAT, PLAIN
from unit.engines.sglang.replay import stream_of
from unit.engines.sglang.running import info, job, paths, running, streamed

TEXT = Submission(prompt="hi", stopping=Stopping(max_tokens=6))
ANSWER = Channel(0)
BOTH = Submission(prompt="hi", sampling=Sampling(n=2))


async def told(engine: SglangEngine, submission: Submission = TEXT) -> list[Generated]:
    batch: list[Generated] = []
    async with aclosing(told_by(engine, job(submission))) as reads:
        async for read in reads:
            batch += read
    return batch


def text(batch: list[Generated], channel: Channel = ANSWER) -> str:
    return "".join(item.text for item in batch if isinstance(item, Piece) and item.channel == channel)


def bodies(server: ScriptedServer, path: str) -> list[object]:
    return [exchange.json for exchange in server.requests if exchange.path == path]


@pytest.mark.asyncio
async def test_a_prompt_is_answered_by_the_native_endpoint() -> None:
    async with running({"/generate": streamed(stream_of("gen_stream_full.txt"))}) as (engine, server):
        await engine.check()
        batch = await told(engine)
        # The prompt is not the one that was captured, so its ids are not told.
        assert batch[0] == PromptRead(prompt_tokens=5, cached_tokens=4)
        assert text(batch) == " Paris.\n\nThe answer"
        assert batch[-2:] == [
            ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH),
            Totals(prompt_tokens=5, cached_tokens=4, output_tokens=6, reasoning_tokens=0),
        ]
        assert bodies(server, "/generate") == [
            {"input_ids": [1, 2], "rid": "u1", "stream": True, "sampling_params": {"max_new_tokens": 6}}
        ]
        await engine.close()
        assert "/abort_request" not in paths(server)


@pytest.mark.asyncio
async def test_a_plain_chat_is_sent_rendered_and_each_request_has_a_name_of_its_own() -> None:
    async with running({"/generate": streamed(stream_of("gen_stream_full.txt"))}) as (engine, server):
        await engine.check()
        await told(engine, PLAIN)
        await told(engine, PLAIN)
        names = [exchange.json["rid"] for exchange in server.requests if exchange.path == "/generate"]
        assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize(
    ("name", "said", "reason"),
    [
        ("chat_stream_full.txt", "Hello there! I", FinishReason.LENGTH),
        ("chat_stream.txt", "The capital of France is Paris.", FinishReason.STOP),
        ("chat_logprobs_stream.txt", "Hello there!", FinishReason.LENGTH),
        # What is left of a character that the limit has cut off is not told.
        ("chat_cut_character_stream.txt", "��", FinishReason.LENGTH),
    ],
)
@pytest.mark.asyncio
async def test_a_chat_that_needs_a_parser_is_answered_by_the_chat_endpoint_in_any_cut(
    name: str, said: str, reason: FinishReason
) -> None:
    stream = captures.body("sglang", name)
    for step in (1, 7, 100, len(stream)):
        parts = [chunk(part) for part in cuts(stream, range(step, len(stream), step))]
        answer = STREAM_HEAD + b"".join(parts) + LAST_CHUNK
        async with running({"/v1/chat/completions": answer}) as (engine, _):
            await engine.check()
            batch = await told(engine, CHAT)
            assert text(batch) == said
            assert [item for item in batch if isinstance(item, ChoiceDone)] == [
                ChoiceDone(choice=0, finish_reason=reason)
            ]
            assert isinstance(batch[-1], Totals)


@pytest.mark.asyncio
async def test_log_probabilities_of_a_chat_are_told_as_far_as_they_were_asked_for() -> None:
    asked = Submission(messages=CHAT.messages, reasoning=CHAT.reasoning, output=Output(logprobs=Logprobs(top_n=1)))
    async with running({"/v1/chat/completions": streamed(stream_of("chat_logprobs_stream.txt"))}) as (engine, _):
        await engine.check()
        logprobs = [one for item in await told(engine, asked) if isinstance(item, Piece) for one in item.logprobs]
        assert [(one.token, len(one.top)) for one in logprobs] == [("Hello", 1), (" there", 1), ("!", 1)]


@pytest.mark.asyncio
async def test_reasoning_is_told_apart_where_the_server_does() -> None:
    replies = {
        "/server_info": info(reasoning_parser="qwen3"),
        "/v1/chat/completions": streamed(captures.body("sglang", "tool_required_stream.txt")),
        "/model_info": reply(200, b"{}"),
    }
    async with running(replies) as (engine, _):
        await engine.check()
        batch = await told(engine, PLAIN)
        assert text(batch) == ""
        assert text(batch, Channel(0, ChannelKind.REASONING)).startswith("Bienvenue, welcome to the City of Light!")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("abort_chat_stream.txt", "ENGINE_ABORTED"), ("chat_bad_regex_stream.txt", "ENGINE_REFUSED")],
)
@pytest.mark.asyncio
async def test_a_chat_that_fails_in_its_stream_is_a_failure(name: str, reason: str) -> None:
    async with running({"/v1/chat/completions": streamed(captures.body("sglang", name))}) as (engine, _):
        await engine.check()
        with pytest.raises(EngineError) as caught:
            await told(engine, CHAT)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("queue_4", Code.UNAVAILABLE, "ENGINE_OVERLOADED"),
        ("err_regex", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("err_temp_str", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("err_toolong_generate", Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ("auth_none", Code.INTERNAL, "UPSTREAM_AUTH"),
        ("notfound", Code.UNAVAILABLE, "UPSTREAM_PROTOCOL"),
    ],
)
@pytest.mark.asyncio
async def test_a_refusal_has_its_code(name: str, code: Code, reason: str) -> None:
    status, body = captures.errors("sglang")[name]
    async with running({"/generate": reply(status, body)}) as (engine, _):
        await engine.check()
        with pytest.raises(EngineError) as caught:
            await told(engine)
        assert (caught.value.code, caught.value.reason) == (code, reason)


@pytest.mark.parametrize("submission", [TEXT, CHAT])
@pytest.mark.asyncio
async def test_a_stream_without_its_terminator_is_a_failure(submission: Submission) -> None:
    name = "gen_stream_full.txt" if submission is TEXT else "chat_stream_full.txt"
    stream = streamed(captures.body("sglang", name).replace(b"data: [DONE]\n\n", b""))
    async with running({"/generate": stream, "/v1/chat/completions": stream}) as (engine, _):
        await engine.check()
        with pytest.raises(EngineError) as caught:
            await told(engine, submission)
        assert caught.value.reason == "ENGINE_LOST"


@pytest.mark.asyncio
async def test_ids_that_would_kill_the_server_are_not_sent_even_by_a_request_that_nobody_vetted() -> None:
    async with running({}) as (engine, server):
        await engine.check()
        for ids in ((99_999_999,), (-5,)):
            with pytest.raises(InvalidRequestError):
                await told(engine, Submission(prompt_ids=ids))
        assert "/generate" not in paths(server)


class Endless:
    """Sends the events of a capture up to its last ones, then nothing until the client hangs up."""

    def __init__(self, stream: bytes, events: int) -> None:
        self._beginning = b"".join(captures.events(stream)[:events])
        self.left = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + (chunk(self._beginning) if self._beginning else b""))
        self.begun.set()
        await exchange.hung_up()
        self.left.set()


async def leave(reads: AsyncGenerator[list[Generated], None]) -> None:
    async with aclosing(reads):
        async for _ in reads:
            return


@pytest.mark.parametrize(
    ("submission", "path", "name", "rids"),
    [
        (TEXT, "/generate", "gen_stream_full.txt", ["u1", "ef4f039f597947a4a6c18aa4167bfe92"]),
        (
            BOTH,
            "/generate",
            "gen_n2_stream.txt",
            ["u1", "47ccc662fdae42518621b6abbeccb0c8", "83fa6d24996f4d869980bf8936c0e436"],
        ),
        (CHAT, "/v1/chat/completions", "chat_stream_full.txt", ["u1"]),
    ],
)
@pytest.mark.asyncio
async def test_a_request_that_nobody_wants_any_more_is_hung_up_on_and_aborted(
    submission: Submission, path: str, name: str, rids: list[str]
) -> None:
    endless = Endless(captures.body("sglang", name), 3)
    async with running({path: endless}) as (engine, server):
        await engine.check()
        await leave(told_by(engine, job(submission)))
        await endless.left.wait()
        await engine.close()
        assert bodies(server, "/abort_request") == [{"rid": rid} for rid in rids]


@pytest.mark.asyncio
async def test_a_request_is_aborted_before_its_first_event_too() -> None:
    endless = Endless(b"", 0)
    async with running({"/generate": endless}) as (engine, server):
        await engine.check()
        reads = told_by(engine, job(TEXT))
        first = asyncio.ensure_future(anext(reads))
        await endless.begun.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await endless.left.wait()
        await until(lambda: bodies(server, "/abort_request") == [{"rid": "u1"}], "the request is aborted")


@pytest.mark.asyncio
async def test_an_abort_that_fails_disturbs_nobody() -> None:
    endless = Endless(captures.body("sglang", "gen_stream_full.txt"), 2)
    async with running({"/generate": endless, "/abort_request": reply(500, b"")}) as (engine, server):
        await engine.check()
        await leave(told_by(engine, job(TEXT)))
        await engine.close()
        assert "/abort_request" in paths(server)
