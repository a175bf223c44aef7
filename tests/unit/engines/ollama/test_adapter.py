"""The adapter and the stand-in of an Ollama."""

from contextlib import aclosing

import pytest

from harness.ollama_stand_in import Part, StandInModel
from harness.telling import told_by
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Piece, Totals
from tokenwire.domain.request import (
    Constraint,
    Logprobs,
    Output,
    ReasoningEffort,
    Stopping,
    Submission,
    Tool,
    ToolMode,
)
from tokenwire.engines.ollama.adapter import OllamaEngine
from unit.engines.ollama.running import HI, engine_at, job, running, told
from unit.engines.scripted_http import Exchange, reply, serving

TEXT = Channel(0)
REASONING = Channel(0, ChannelKind.REASONING)
CALL = Channel(0, ChannelKind.TOOL_CALL, 0)
HELLO = Submission(prompt="hi you")
TALK = Submission(messages=HI)
PLAIN = StandInModel(digest="d1", capabilities=("completion",))
LONG = "word " * 100


def end(reason: FinishReason) -> list[ChoiceDone]:
    return [ChoiceDone(choice=0, finish_reason=reason)]


@pytest.mark.asyncio
async def test_a_prompt_and_a_chat_are_answered() -> None:
    async with running() as (engine, stand_in):
        for submission, read in ((HELLO, 2), (TALK, 2)):
            answer = await told(engine, submission)
            assert answer.texts == {TEXT: "Hello there, friend."}
            assert answer.ends == end(FinishReason.STOP)
            assert answer.totals == Totals(prompt_tokens=read, output_tokens=3)
        assert [path for path, _ in stand_in.bodies] == ["/api/show", "/api/generate", "/api/chat"]


@pytest.mark.asyncio
async def test_thinking_and_tool_calls_arrive() -> None:
    answer = (Part(thinking="Let me look."), Part(call=("weather", {"city": "Köln"})))
    async with running(answer=answer) as (engine, stand_in):
        got = await told(engine, Submission(messages=HI, tools=(Tool(name="weather"),), reasoning=ReasoningEffort.HIGH))
        assert got.texts == {REASONING: "Let me look.", CALL: '{"city":"Köln"}'}
        assert got.ends == end(FinishReason.TOOL_CALLS)
        (body,) = stand_in.asked("/api/chat")
        assert (body["think"], body["tools"][0]["function"]["name"]) == ("high", "weather")


@pytest.mark.asyncio
async def test_tools_that_shall_not_be_called_are_not_told() -> None:
    async with running() as (engine, stand_in):
        await told(engine, Submission(messages=HI, tools=(Tool(name="weather"),), tool_choice=ToolMode.NONE))
        assert "tools" not in stand_in.asked("/api/chat")[0]


@pytest.mark.asyncio
async def test_a_constraint_stop_strings_and_log_probabilities_reach_it() -> None:
    async with running() as (engine, _):
        constrained = await told(engine, Submission(prompt="hi", constraint=Constraint(json_object=True)))
        assert constrained.texts == {TEXT: '{"ok": true}'}
        stopped = await told(engine, Submission(prompt="hi", stopping=Stopping(stop=("frie",))))
        assert stopped.texts == {TEXT: "Hello there, "}
        assert stopped.ends == end(FinishReason.STOP)
        measured = await told(engine, Submission(prompt="hi", output=Output(logprobs=Logprobs(top_n=2))))
        assert [one.token for one in measured.logprobs] == ["Hello", " there,", " friend."]
        assert [top.token for top in measured.logprobs[0].top] == ["Hello", "x"]


@pytest.mark.asyncio
async def test_the_limit_and_the_window_end_an_answer() -> None:
    models = {"tiny:latest": StandInModel(digest="d1", num_ctx=20)}
    async with running(models=models, answer=(Part(text=LONG),)) as (engine, _):
        short = await told(engine, Submission(prompt="hi", stopping=Stopping(max_tokens=4)))
        assert short.ends == end(FinishReason.LENGTH)
        full = await told(engine, HELLO)
        assert full.ends == end(FinishReason.CONTEXT_LENGTH)
        assert full.totals == Totals(prompt_tokens=2, output_tokens=18)


@pytest.mark.asyncio
@pytest.mark.parametrize("submission", [Submission(prompt=LONG), Submission(messages=HI * 60)])
async def test_a_prompt_that_does_not_fit_is_refused_not_shortened(submission: Submission) -> None:
    async with running(default_num_ctx=64) as (engine, _):
        with pytest.raises(EngineError) as caught:
            await told(engine, submission)
        assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED")


@pytest.mark.asyncio
async def test_what_a_model_lacks_is_refused_before_there_is_a_run() -> None:
    lacking = (
        (Submission(model="tiny", messages=HI, reasoning=ReasoningEffort.LOW), "reasoning.effort"),
        (Submission(model="tiny", messages=HI, tools=(Tool(name="f"),)), "tools"),
    )
    async with running(models={"tiny:latest": PLAIN}) as (engine, stand_in):
        await engine.check()
        for submission, field in lacking:
            with pytest.raises(InvalidRequestError) as caught:
                engine.vet(submission)
            assert [violation.field for violation in caught.value.violations] == [field]
            with pytest.raises(InvalidRequestError):
                await told(engine, submission)
        engine.vet(TALK)
        assert stand_in.asked("/api/chat") == []


@pytest.mark.asyncio
async def test_a_model_that_lost_its_thinking_since_is_refused_by_name() -> None:
    async with running() as (engine, stand_in):
        await engine.check()
        stand_in.models["tiny:latest"] = PLAIN
        with pytest.raises(InvalidRequestError) as caught:
            await told(engine, Submission(messages=HI, reasoning=ReasoningEffort.LOW))
        assert [violation.field for violation in caught.value.violations] == ["reasoning.effort"]
        assert len(stand_in.asked("/api/chat")) == 1


@pytest.mark.asyncio
async def test_another_refusal_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.ollama_stand_in._OPTIONS", frozenset())
    async with running() as (engine, _):
        with pytest.raises(EngineError) as caught:
            await told(engine, Submission(prompt="hi", stopping=Stopping(max_tokens=1)))
        assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "ENGINE_REFUSED")


@pytest.mark.asyncio
async def test_an_unknown_model_is_not_found() -> None:
    async with running() as (engine, stand_in):
        with pytest.raises(EngineError) as caught:
            await told(engine, HELLO, model="nobody")
        assert (caught.value.code, caught.value.reason) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")
        # It is the same for one that was deleted since it was asked about.
        await told(engine, HELLO)
        stand_in.models.clear()
        with pytest.raises(EngineError) as caught:
            await told(engine, HELLO)
        assert caught.value.reason == "MODEL_NOT_FOUND"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((Part(error="cuda error: out of memory"),), "ENGINE_OUT_OF_MEMORY"),
        ((Part(error="model runner has unexpectedly stopped"),), "ENGINE_FAILED"),
        ((Part(text="a b"), Part(error="model runner has unexpectedly stopped")), "ENGINE_FAILED"),
        ((Part(text="a b"), Part(cut=True)), "ENGINE_LOST"),
        ((Part(text="a b"), Part(early_end=True)), "ENGINE_LOST"),
    ],
)
async def test_a_failure_is_told_after_the_text_that_came_before_it(parts: tuple[Part, ...], reason: str) -> None:
    texts: list[str] = []

    async def write(engine: OllamaEngine) -> None:
        async with aclosing(told_by(engine, job(HELLO))) as batches:
            async for batch in batches:
                texts.extend(item.text for item in batch if isinstance(item, Piece))

    async with running(answer=parts) as (engine, _):
        with pytest.raises(EngineError) as caught:
            await write(engine)
    assert caught.value.reason == reason
    assert "".join(texts) == parts[0].text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b'{"error": "server busy, please try again.  maximum pending requests exceeded"}', "ENGINE_OVERLOADED"),
        (429, b'{"error": "too many requests"}', "UPSTREAM_RATE_LIMITED"),
        (502, b'{"error": "bad gateway"}', "ENGINE_FAILED"),
        (400, b'{"error": "invalid format"}', "ENGINE_REFUSED"),
        (404, b"404 page not found", "UPSTREAM_PROTOCOL"),
        (200, b'{"model": "tiny", "response": "", "done": true, "done_reason": "load"}', "UPSTREAM_PROTOCOL"),
    ],
)
async def test_a_status_that_is_no_stream_is_a_failure(status: int, body: bytes, reason: str) -> None:
    known = {"/api/version": b'{"version": "0.33.0"}', "/api/ps": b'{"models": []}', "/api/show": b"{}"}

    async def script(exchange: Exchange) -> None:
        plain = known.get(exchange.path)
        await exchange.write(reply(status, body) if plain is None else reply(200, plain))

    async with serving(script) as server:
        engine = engine_at(server.url)
        with pytest.raises(EngineError) as caught:
            await told(engine, HELLO)
        await engine.close()
    assert caught.value.reason == reason


@pytest.mark.asyncio
async def test_closing_the_answer_closes_the_connection() -> None:
    async with running(answer=(Part(text="one two"), Part(pause=True), Part(text="three"))) as (engine, stand_in):
        async with aclosing(told_by(engine, job(HELLO))) as batches:
            async for batch in batches:
                if batch:
                    break
        await stand_in.stopped.wait()


@pytest.mark.asyncio
async def test_a_pause_is_no_end() -> None:
    async with running(answer=(Part(text="one two"), Part(pause=True), Part(text=" three"))) as (engine, stand_in):
        texts = []
        async with aclosing(told_by(engine, job(HELLO))) as batches:
            async for batch in batches:
                texts += [item.text for item in batch if isinstance(item, Piece)]
                stand_in.resume.set()
        assert "".join(texts) == "one two three"
