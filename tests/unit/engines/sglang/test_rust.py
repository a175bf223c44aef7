"""SGLang's HTTP server in Rust: what it sends, as it was captured, and what it does not take.

Less is told of an answer, chunk sizes are upper-case, errors are `{"error": {...}}` with a code, several choices are
several prompts, and endpoints that it does not have are empty replies of 404.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from harness.telling import told_by
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece, Prompt, PromptRead, Totals
from tokenwire.domain.request import (
    Constraint,
    Message,
    Output,
    ReasoningEffort,
    Role,
    Sampling,
    Stopping,
    Submission,
    Tool,
    ToolMode,
)
from tokenwire.engines.sglang.adapter import SglangEngine
from tokenwire.engines.sglang.rust import vet_rust
from tokenwire.engines.sglang.server import Server
from tokenwire.engines.status import EngineState, Load
from unit.engines import captures
from unit.engines.openai.replay import cuts
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, Script, ScriptedServer, chunk, reply
from unit.engines.sglang.fields import CHAT, PLAIN, TAG, TOOL, TOOLS, USER
from unit.engines.sglang.running import PROMPT, info, job, paths, running

_FOLDER = Path(__file__).parents[3] / "wire_captures" / "sglang"
TEXT = Submission(prompt="hi", stopping=Stopping(max_tokens=6))
BOTH = Submission(prompt="hi", stopping=Stopping(max_tokens=3), sampling=Sampling(n=2, temperature=0.8))
PLAIN_REPLIES = {
    "/server_info": "server_info",
    "/model_info": "model_info",
    "/v1/models": "models",
    "/v1/loads": "v1_loads",
}
FRANCE = Prompt(text="The capital of France is", token_ids=(504, 3575, 282, 4649, 314), tokens=5)


def raw(name: str) -> bytes:
    """Returns a captured reply with its head and its chunk framing."""
    _, mark, answer = (_FOLDER / f"rust_{name}.txt").read_bytes().partition(b"### RESPONSE\n")
    assert mark
    return answer


def rust(replies: Mapping[str, bytes | Script]) -> AbstractAsyncContextManager[tuple[SglangEngine, ScriptedServer]]:
    """Runs the adapter and a server that says of itself what the one in Rust says."""
    captured = {
        "/ready": raw("ready"),
        "/ping": raw("ready"),
        **{path: reply(200, captures.body("sglang", f"rust_{name}.txt")) for path, name in PLAIN_REPLIES.items()},
    }
    return running(captured | dict(replies))


async def told(
    engine: SglangEngine,
    submission: Submission = TEXT,
    prompt: Prompt = PROMPT,
    into: list[Generated] | None = None,
) -> list[Generated]:
    batch = [] if into is None else into
    async with aclosing(told_by(engine, job(submission, prompt))) as reads:
        async for read in reads:
            batch += read
    return batch


def text(batch: list[Generated], choice: int = 0) -> str:
    return "".join(item.text for item in batch if isinstance(item, Piece) and item.channel == Channel(choice))


@pytest.mark.asyncio
async def test_the_server_is_known_and_available_though_it_has_no_endpoint_that_says_that_it_is_ready() -> None:
    async with rust({}) as (engine, _):
        await engine.check()
        assert (engine.status.state, engine.status.load) == (EngineState.READY, Load(0, 0))
        assert engine.server == Server(
            rust=True,
            tokenizes=True,
            max_prompt=4090,
            vocabulary=300,
            unknown_character=(1, 2),
            seeds=False,
            priorities=0,
        )


@pytest.mark.parametrize(
    ("said", "pings", "is_rust"), [("python", False, False), (None, True, False), (None, False, True)]
)
@pytest.mark.asyncio
async def test_a_server_that_does_not_say_what_it_is_has_a_ping_or_is_the_one_in_rust(
    said: str | None, pings: bool, is_rust: bool
) -> None:
    ping = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" if pings else raw("ready")
    async with running({"/server_info": info(frontend=said), "/ping": ping}) as (engine, _):
        await engine.check()
        assert engine.server.rust is is_rust


@pytest.mark.asyncio
async def test_an_answer_with_fewer_facts_is_read() -> None:
    async with rust({"/generate": raw("gen_stream_full")}) as (engine, _):
        await engine.check()
        batch = await told(engine, prompt=FRANCE)
        assert batch[0] == PromptRead(prompt_tokens=5, cached_tokens=4, token_ids=FRANCE.token_ids)
        assert text(batch) == " Paris.\n\nThe answer"
        assert batch[-2:] == [
            ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH),
            Totals(prompt_tokens=5, cached_tokens=4, output_tokens=6, reasoning_tokens=0),
        ]


@pytest.mark.asyncio
async def test_several_choices_are_sent_as_several_prompts() -> None:
    async with rust({"/generate": raw("gen_apart_stream")}) as (engine, server):
        await engine.check()
        batch = await told(engine, BOTH, FRANCE)
        assert (text(batch, 0), text(batch, 1)) == (" Paris.\n", " Paris.\n")
        # They share one prompt.
        assert [item for item in batch if isinstance(item, PromptRead)] == [
            PromptRead(prompt_tokens=5, cached_tokens=4, token_ids=FRANCE.token_ids)
        ]
        assert batch[-1] == Totals(prompt_tokens=5, cached_tokens=4, output_tokens=6, reasoning_tokens=0)
        assert server.requests[-1].json == {
            "input_ids": [list(FRANCE.token_ids)] * 2,
            "rid": ["u1-0", "u1-1"],
            "stream": True,
            "sampling_params": {"temperature": 0.8, "max_new_tokens": 3},
        }
        await told(engine, BOTH, Prompt(text="hi"))
        assert server.requests[-1].json["text"] == ["hi", "hi"]


@pytest.mark.parametrize("submission", [TEXT, BOTH])
@pytest.mark.asyncio
async def test_choices_that_nobody_wants_any_more_are_aborted_by_their_names(submission: Submission) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD)
        begun = captures.events(captures.body("sglang", "rust_gen_apart_stream.txt"))[0]
        await exchange.write(chunk(begun.replace(b"u1-0", b"u1") if submission is TEXT else begun))
        await exchange.hung_up()

    async with rust({"/generate": endless}) as (engine, server):
        await engine.check()
        reads = told_by(engine, job(submission))
        async with aclosing(reads):
            await anext(reads)
        await engine.close()
        names = [exchange.json["rid"] for exchange in server.requests if exchange.path == "/abort_request"]
        assert names == (["u1"] if submission is TEXT else ["u1-0", "u1-1"])


@pytest.mark.parametrize(
    ("name", "said", "reason", "matched"),
    [
        ("chat_stream_full", "Hello there! I", FinishReason.LENGTH, None),
        ("chat_stream", "The capital of France is Paris.", FinishReason.STOP, None),
        ("chat_logprobs_stream", "Hello there!", FinishReason.LENGTH, None),
        ("chat_cut_character_stream", "��", FinishReason.LENGTH, None),
    ],
)
@pytest.mark.asyncio
async def test_a_chat_is_told_in_any_cut_without_what_the_server_does_not_say(
    name: str, said: str, reason: FinishReason, matched: str | None
) -> None:
    stream = captures.body("sglang", f"rust_{name}.txt")
    framed = [chunk(part) for step in (1, 100) for part in cuts(stream, range(step, len(stream), step))]
    for answer in (raw(name), STREAM_HEAD + b"".join(framed) + LAST_CHUNK):
        async with rust({"/v1/chat/completions": answer}) as (engine, _):
            await engine.check()
            batch = await told(engine, CHAT)
            assert text(batch) == said
            assert ChoiceDone(choice=0, finish_reason=reason, matched_stop=matched) in batch
            totals = batch[-1]
            assert isinstance(totals, Totals)
            assert totals.prompt_tokens
            # Not even where the server was told to report them.
            assert totals.cached_tokens is None


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("err_n2_stream", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("err_temp_neg_stream", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("gen_bad_regex_stream", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("err_toolong_stream", Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ("gen_sum_toolong_stream", Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ("err_structural_tag", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("err_tool_call_id", Code.INVALID_ARGUMENT, "ENGINE_REFUSED"),
        ("abort_stream", Code.UNAVAILABLE, "ENGINE_FAILED"),
        # One of two choices was aborted by its name.
        ("abort_apart_stream", Code.UNAVAILABLE, "ENGINE_ABORTED"),
        ("ready", Code.UNAVAILABLE, "UPSTREAM_PROTOCOL"),
    ],
)
@pytest.mark.asyncio
async def test_a_failure_has_its_code_and_none_of_the_server_s_words(name: str, code: Code, reason: str) -> None:
    async with rust({"/generate": raw(name)}) as (engine, _):
        await engine.check()
        with pytest.raises(EngineError) as caught:
            await told(engine, BOTH if "apart" in name else TEXT)
        assert (caught.value.code, caught.value.reason) == (code, reason)
        assert caught.value.retryable is (code is Code.UNAVAILABLE and name != "ready")
        assert not any(word in str(caught.value) for word in ("regex_converter", "validation", "truncated"))
        if name == "gen_bad_regex_stream":
            assert [violation.field for violation in caught.value.violations] == ["constraint"]
        if name == "err_toolong_stream":
            assert caught.value.metadata == {"limit": "4096", "got": "4201"}


@pytest.mark.parametrize(
    ("name", "reason"), [("abort_chat_stream", "ENGINE_ABORTED"), ("chat_bad_regex_stream", "ENGINE_REFUSED")]
)
@pytest.mark.asyncio
async def test_a_chat_that_fails_in_its_stream_has_its_code(name: str, reason: str) -> None:
    async with rust({"/v1/chat/completions": raw(name)}) as (engine, _):
        await engine.check()
        batch: list[Generated] = []
        with pytest.raises(EngineError) as caught:
            await told(engine, CHAT, into=batch)
        assert caught.value.reason == reason
        assert bool(text(batch)) is (reason == "ENGINE_ABORTED")


@pytest.mark.asyncio
async def test_a_server_that_is_told_to_end_breaks_its_answers_off() -> None:
    async def ends(exchange: Exchange) -> None:
        await exchange.write(raw("incr_drain_stream"))
        exchange.writer.close()

    async with rust({"/generate": ends}) as (engine, _):
        await engine.check()
        batch: list[Generated] = []
        with pytest.raises(EngineError) as caught:
            await told(engine, into=batch)
        assert (caught.value.reason, caught.value.retryable) == ("ENGINE_LOST", True)
        # Its events told only what was new.
        assert text(batch).startswith(", the city of Nova Haven was a thriving metropolis")


SERVER = Server(rust=True, tokenizes=True, vocabulary=100, tool_parser=True)
ANSWER = Message(role=Role.TOOL, content="x", tool_call_id="c1")


def refused(submission: Submission, server: Server = SERVER) -> str | None:
    try:
        vet_rust(submission, server)
    except InvalidRequestError as error:
        return error.violations[0].field
    return None


@pytest.mark.parametrize(
    ("field", "submission"),
    [
        ("tools.name", TOOLS),
        ("tools.name", replace(TOOLS, tool_choice=ToolMode.REQUIRED)),
        # The implementation that passes over much is chosen by the tools, whether they may be called or not.
        ("tools.name", replace(TOOLS, tool_choice=ToolMode.NONE, reasoning=ReasoningEffort.LOW)),
        ("constraint.structural_tag", replace(CHAT, constraint=Constraint(structural_tag=TAG))),
        ("messages.name", replace(PLAIN, messages=(replace(ANSWER, name="f"), USER))),
        ("messages.tool_call_id", replace(PLAIN, messages=(replace(ANSWER, tool_call_id=""), USER))),
    ],
)
def test_what_it_would_pass_over_is_refused_by_name(field: str, submission: Submission) -> None:
    assert refused(submission) == field


@pytest.mark.parametrize(
    "submission",
    [
        TEXT,
        BOTH,
        PLAIN,
        CHAT,
        replace(TEXT, constraint=Constraint(structural_tag=TAG)),
        replace(PLAIN, constraint=Constraint(structural_tag=TAG)),
        replace(CHAT, constraint=Constraint(regex="a"), output=Output(echo=True)),
        replace(PLAIN, tools=(TOOL, Tool(name="g")), tool_choice=ToolMode.NONE),
        replace(PLAIN, messages=(USER, ANSWER)),
    ],
)
def test_what_it_takes_is_not_refused(submission: Submission) -> None:
    assert refused(submission) is None


@pytest.mark.asyncio
async def test_the_engine_refuses_before_it_asks() -> None:
    async with rust({}) as (engine, server):
        await engine.check()
        # The name of a user is one of the prompt there.
        engine.vet(replace(PLAIN, messages=(replace(USER, name="Ada"),)))
        with pytest.raises(InvalidRequestError) as caught:
            engine.vet(replace(CHAT, constraint=Constraint(structural_tag=TAG)))
        assert caught.value.reason == "FEATURE_UNSUPPORTED"
        assert not {"/generate", "/v1/chat/completions"} & set(paths(server))
