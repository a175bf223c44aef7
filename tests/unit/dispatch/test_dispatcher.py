"""Whatever an engine does, its run ends, once, and says how."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError, Violation
from tokenwire.domain.events import Continuation, Dispatched, End, FinishReason
from tokenwire.domain.generation import Job, Piece, PromptRead, Tell
from tokenwire.domain.request import Constraint, Limits, Sampling, Stopping
from tokenwire.engines.scripted import Cut, Emit, Fail, Pause, ScriptedEngine, Step
from tokenwire.engines.support import Cell, Support
from unit.dispatch.house import House, asked, engine, say, stop, text_of

REFUSED = EngineError(Code.INVALID_ARGUMENT, "ENGINE_REFUSED", "no")
BUSY = EngineError(Code.RESOURCE_EXHAUSTED, "ENGINE_OUT_OF_MEMORY", "full", retryable=True, retry_after=2.0)


async def ended(house: House, **fields: Any) -> End:
    run = await house.submit(asked(**fields))
    await run.finished()
    assert run.end is not None
    return run.end


@pytest.mark.asyncio
async def test_a_run_is_start_dispatched_text_end() -> None:
    house = House(engine(say("a"), say("b"), stop()))
    run = await house.submit(asked())
    assert await house.read_to_the_end(run) == "ab"
    (_, dispatched, end) = (marked.marker for marked in run.log.markers)
    assert dispatched == Dispatched(engine="scripted", attempt=1, continuation=Continuation.FIRST)
    assert isinstance(end, End)
    assert (end.error, end.choices[0].finish_reason) == (None, FinishReason.STOP)
    assert end.channels == run.log.channel_ends()
    await house.at_rest()


FAILURES: dict[str, tuple[Step, Code, Code, str]] = {
    "a refusal": (Fail(REFUSED), Code.INVALID_ARGUMENT, Code.DATA_LOSS, "ENGINE_REFUSED"),
    "no memory": (Fail(BUSY), Code.RESOURCE_EXHAUSTED, Code.DATA_LOSS, "ENGINE_OUT_OF_MEMORY"),
    "a cut stream": (Cut(), Code.UNAVAILABLE, Code.DATA_LOSS, "ENGINE_LOST"),
    "silence": (Pause(None), Code.DEADLINE_EXCEEDED, Code.DATA_LOSS, ""),
    "a bug": (Fail(ValueError("the prompt, a path")), Code.INTERNAL, Code.INTERNAL, "INTERNAL"),
    "a cancellation inside": (Fail(asyncio.CancelledError()), Code.INTERNAL, Code.INTERNAL, "INTERNAL"),  # type: ignore[arg-type]
    "no text at all": (say("\ud83d"), Code.INTERNAL, Code.INTERNAL, "INTERNAL"),
}


@pytest.mark.parametrize("late", [False, True], ids=["before text", "after text"])
@pytest.mark.parametrize(("step", "early", "lost", "reason"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.asyncio
async def test_a_failure_is_the_run_s_end(step: Step, early: Code, lost: Code, reason: str, late: bool) -> None:
    house = House(engine(say("a"), step) if late else engine(step))
    end = await ended(house)
    assert end.error is not None
    assert end.error.code is (lost if late else early)
    assert end.error.reason == (reason or ("ENGINE_STALLED" if late else "FIRST_TOKEN_TIMEOUT"))
    assert end.choices[0].finish_reason is FinishReason.ERROR
    assert "path" not in repr(end)
    # What was lost in the middle may be asked for again; a bug or a refusal rather not.
    assert end.error.retryable == (
        end.error.reason not in ("INTERNAL", "ENGINE_REFUSED") or end.error.code is Code.DATA_LOSS
    )
    assert [one.bytes for one in end.channels] == ([1] if late else [])
    await house.at_rest()


@pytest.mark.parametrize(
    ("constraint", "field"), [(Constraint(regex="("), "constraint"), (None, "tools")], ids=["constraint", "tools"]
)
@pytest.mark.asyncio
async def test_a_grammar_that_an_engine_could_not_make_is_blamed_on_what_it_was_made_of(
    constraint: Constraint | None, field: str
) -> None:
    fault = (Violation(field="constraint", description="refused by the engine"),)
    house = House(engine(Fail(EngineError(Code.INVALID_ARGUMENT, "ENGINE_REFUSED", "no", violations=fault))))
    end = await ended(house, constraint=constraint)
    assert end.error is not None
    assert [one.field for one in end.error.violations] == [field]


@pytest.mark.asyncio
async def test_a_stream_that_ends_before_every_choice_did_is_lost() -> None:
    end = await ended(House(engine(say("a"), say("b", 1), stop(1))), sampling=Sampling(n=2))
    assert end.error is not None
    assert end.error.reason == "ENGINE_LOST"
    assert [one.finish_reason for one in end.choices] == [FinishReason.ERROR, FinishReason.STOP]


@pytest.mark.parametrize(("asked_for", "seconds"), [(None, 120), (5.0, 5)])
@pytest.mark.asyncio
async def test_the_first_token_must_come_in_time_however_long_the_prompt(asked_for: float | None, seconds: int) -> None:
    read = Emit((PromptRead(prompt_tokens=1, cached_tokens=0),))
    house = House(engine(Pause(seconds * 0.9), read, Pause(seconds * 0.9), say("a"), stop()))
    end = await ended(house, limits=Limits(first_token_timeout=asked_for))
    assert end.error is not None
    assert (end.error.code, end.error.reason) == (Code.DEADLINE_EXCEEDED, "FIRST_TOKEN_TIMEOUT")
    assert end.timings.completed_ms == seconds * 1000
    await house.at_rest()


@pytest.mark.asyncio
async def test_an_answer_that_comes_as_a_whole_has_the_run_s_own_limit_unless_asked_otherwise() -> None:
    house = House(engine(Pause(1000), say("a"), stop()))
    house.engine.fields = {**house.engine.fields, "prompt": Cell(Support.NATIVE, "", unary_only=True)}
    assert (await ended(house)).error is None
    hurried = await ended(house, limits=Limits(first_token_timeout=5.0))
    assert hurried.error is not None
    assert hurried.error.reason == "FIRST_TOKEN_TIMEOUT"
    await house.at_rest()


@pytest.mark.parametrize(("asked_for", "seconds"), [(None, 30), (5.0, 5)])
@pytest.mark.asyncio
async def test_after_the_first_token_silence_is_a_stall_and_anything_is_a_sign_of_life(
    asked_for: float | None, seconds: int
) -> None:
    empty = Emit((Piece(channel=Channel(), text="", token_ids=(1,)),))
    lives: list[Step] = [Pause(seconds - 1), empty] * 10
    house = House(engine(say("a"), *lives, Pause(None)))
    end = await ended(house, limits=Limits(stall_timeout=asked_for))
    assert end.error is not None
    assert (end.error.code, end.error.reason) == (Code.DATA_LOSS, "ENGINE_STALLED")
    assert end.timings.completed_ms == (10 * (seconds - 1) + seconds) * 1000
    await house.at_rest()


@pytest.mark.asyncio
async def test_an_engine_that_does_not_stop_at_max_tokens_is_stopped() -> None:
    house = House(engine(*([say("a")] * 10), Pause(None)))
    run = await house.submit(asked(stopping=Stopping(max_tokens=4)))
    assert await house.read_to_the_end(run) == "aaaa"
    assert run.end is not None
    assert (run.end.error, run.end.choices[0].finish_reason) == (None, FinishReason.LENGTH)
    assert house.engine.stopped == 1
    await house.at_rest()


@pytest.mark.asyncio
async def test_an_engine_hears_its_own_default_for_tokens() -> None:
    limits: list[int | None] = []

    def script(job: Job) -> list[Step]:
        limits.append(job.submission.stopping.max_tokens)
        return [say("a"), stop()]

    house = House(ScriptedEngine(script=script))
    for limit in (None, 7):
        await ended(house, stopping=Stopping(max_tokens=limit))
    assert limits == [64, 7]
    await house.at_rest()


@pytest.mark.parametrize(("limit", "heard"), [(None, 64), (80, 80), (98, 98), (99, 98), (5000, 98)])
@pytest.mark.asyncio
async def test_an_engine_hears_no_more_tokens_than_its_window_has_room_for(limit: int | None, heard: int) -> None:
    jobs: list[Job] = []

    def script(job: Job) -> list[Step]:
        jobs.append(job)
        return [stop()]

    house = House(ScriptedEngine(script=script, context_window=100))
    await ended(house, stopping=Stopping(max_tokens=limit))
    assert jobs[0].submission.stopping.max_tokens == heard


@pytest.mark.asyncio
async def test_an_answer_that_filled_the_window_says_so() -> None:
    steps = [Emit((PromptRead(prompt_tokens=2, cached_tokens=0),)), *[say("a")] * 98, stop(0, FinishReason.LENGTH)]
    house = House(ScriptedEngine(script=lambda job: steps, context_window=100))
    assert (await ended(house, stopping=Stopping(max_tokens=5000))).choices[0].finish_reason is (
        FinishReason.CONTEXT_LENGTH
    )


@pytest.mark.asyncio
async def test_a_run_that_outgrows_the_journal_is_cut_with_a_clear_reason() -> None:
    house = House(engine(*([say("x" * 3000)] * 20), stop()), journal_bytes=40_000)
    run = await house.submit(asked())
    await run.finished()
    assert run.error is not None
    assert (run.error.code, run.error.reason) == (Code.DATA_LOSS, "JOURNAL_FULL")
    assert 20_000 < len(text_of(run)) < 40_000
    assert house.journal.held == run.log.size
    await house.at_rest()


class Clinging(ScriptedEngine):
    """Its generator does not want to close."""

    async def generate(self, job: Job, tell: Tell) -> None:
        """Writes one token, and then clings."""
        self.running += 1
        try:
            tell([Piece(channel=Channel(), text="a", token_ids=(1,))])
            await asyncio.sleep(5)
        finally:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.running -= 1


@pytest.mark.asyncio
async def test_an_engine_that_hangs_in_its_close_is_torn_out_of_it() -> None:
    house = House(Clinging())
    run = await house.submit(asked())
    await asyncio.sleep(1)
    ended = await house.runs.cancel(house.context, run_id=run.id)
    assert ended.end is not None
    assert (ended.end.error, ended.end.choices[0].finish_reason) == (None, FinishReason.CANCELLED)
    assert ended.end.timings.completed_ms == 2000
    await house.at_rest()


class Stubborn(ScriptedEngine):
    """Its generator swallows every cancellation until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def generate(self, job: Job, tell: Tell) -> None:
        """Writes one token, and then does not listen."""
        tell([Piece(channel=Channel(), text="a", token_ids=(1,))])
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.let_go.wait()


@pytest.mark.asyncio
async def test_an_engine_that_cannot_be_stopped_holds_up_neither_a_cancel_nor_the_drain() -> None:
    stubborn = Stubborn()
    house = House(stubborn)
    run = await house.submit(asked())
    await asyncio.sleep(1)
    assert (await house.runs.cancel(house.context, run_id=run.id)).end is None
    await house.runs.drain(0)
    assert asyncio.get_running_loop().time() < 10
    # The server closes over it; what it leaves behind ends without a word.
    await house.runs.close()
    stubborn.let_go.set()
    await run.finished()
    assert run.task is not None
    assert run.task.exception() is None
    assert run.end is not None
    assert run.end.choices[0].finish_reason is FinishReason.CANCELLED


@pytest.mark.asyncio
async def test_an_engine_that_is_slow_to_close_has_answered_all_the_same() -> None:
    house = House(Slow())
    run = await house.submit(asked(stopping=Stopping(max_tokens=1), detached=True))
    await run.finished()
    assert run.error is None
    assert text_of(run) == "a"


class Slow(ScriptedEngine):
    """Writes more than it was asked for, and closes after the stall limit."""

    async def generate(self, job: Job, tell: Tell) -> None:
        """Writes two tokens."""
        try:
            for text in ("a", "b"):
                tell([Piece(channel=Channel(), text=text, token_ids=(1,))])
        finally:
            await asyncio.sleep(100)
