"""A request id never has two runs of which neither failed, and a cancel finds its run, whenever it comes."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import START
from tokenwire.domain.errors import Code, EngineError, NotFoundError, TokenwireError
from tokenwire.domain.events import End, FinishReason
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Token
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine, Step
from unit.dispatch.house import House, asked, engine, say, stop, text_comes

BROKEN = EngineError(Code.UNAVAILABLE, "ENGINE_FAILED", "no", retryable=True)


class SlowTokenizer:
    """Renders in ten seconds; fails for prompts that say so."""

    async def prompt(self, submission: Submission) -> Prompt:
        """Takes its time."""
        await asyncio.sleep(10)
        if submission.prompt == "refused":
            raise EngineError(Code.INVALID_ARGUMENT, "ENGINE_REFUSED", "no")
        return Prompt(text=submission.prompt, token_ids=(1,), tokens=1)

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Tells no tokens."""
        raise NotImplementedError

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Turns nothing back."""
        raise NotImplementedError


def slow_house() -> House:
    """Returns a house that renders in ten seconds."""
    return House(engine(say("one"), stop(), tokenizer=SlowTokenizer()))


def ends(run: Run) -> list[End]:
    return [marked.marker for marked in run.log.markers if isinstance(marked.marker, End)]


def finish(run: Run) -> FinishReason:
    (end,) = ends(run)
    return end.choices[0].finish_reason


@pytest.mark.asyncio
async def test_submits_at_the_same_time_make_one_run() -> None:
    house = slow_house()
    async with asyncio.TaskGroup() as group:
        submits = [group.create_task(house.submit(asked("a"))) for _ in range(10)]
    assert len({submit.result() for submit in submits}) == 1
    await submits[0].result().finished()
    assert house.engine.started == 1
    assert not house.runs._accepting
    await house.at_rest()


@pytest.mark.asyncio
async def test_submits_without_an_id_or_of_other_tenants_are_runs_of_their_own() -> None:
    house = House(engine(say("one"), stop()))
    requests = [
        house.submit(asked()),
        house.submit(asked()),
        house.submit(asked("a")),
        house.submit(asked("a"), "other"),
    ]
    runs = await asyncio.gather(*requests)
    assert len({run.id for run in runs}) == 4
    for run in runs:
        await run.finished()
    await house.at_rest()


@pytest.mark.asyncio
async def test_when_the_first_submit_is_refused_or_leaves_the_next_one_takes_its_turn() -> None:
    house = slow_house()
    refused = asyncio.create_task(house.submit(asked("a", prompt="refused")))
    await asyncio.sleep(1)
    leaver = asyncio.create_task(house.submit(asked("a")))
    await asyncio.sleep(0)
    stayer = asyncio.create_task(house.submit(asked("a")))
    await asyncio.sleep(11)
    leaver.cancel()
    run = await stayer
    assert isinstance(refused.exception(), EngineError)
    await run.finished()
    assert house.engine.started == 1
    assert not house.runs._accepting
    await house.at_rest()


@pytest.mark.asyncio
async def test_the_same_request_finds_its_run_running_and_ended() -> None:
    house = House(engine(say("one "), Pause(5), say("two"), stop()))
    run = await house.submit(asked("a"))
    await text_comes(run)
    assert await house.submit(asked("a")) is run
    assert await house.submit(replace(asked("a"), after=START)) is run
    await run.finished()
    assert await house.submit(asked("a")) is run
    await house.runs.cancel(house.context, request_id="a")
    assert finish(run) is FinishReason.STOP
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_cancelled_run_is_found_again_and_not_started_anew() -> None:
    house = House(engine(say("one "), Pause(5), stop()))
    run = await house.submit(asked("a"))
    await text_comes(run)
    await house.runs.cancel(house.context, request_id="a")
    assert await house.submit(asked("a")) is run
    assert finish(run) is FinishReason.CANCELLED
    await house.at_rest()


@pytest.mark.asyncio
async def test_another_request_with_the_same_id_is_refused_while_the_run_is_known() -> None:
    house = House(engine(say("one"), stop()))
    run = await house.submit(asked("a"))
    for _ in range(2):
        with pytest.raises(TokenwireError) as caught:
            await house.submit(asked("a", prompt="something else"))
        assert (caught.value.code, caught.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_TAKEN")
        await run.finished()
    await house.at_rest()


@pytest.mark.asyncio
async def test_after_an_error_the_same_request_starts_a_new_run_and_the_id_names_that() -> None:
    scripts: list[list[Step]] = [[Fail(BROKEN)], [say("one"), stop()]]
    house = House(ScriptedEngine(script=lambda job: scripts.pop(0)))
    first = await house.submit(asked("a"))
    await first.finished()
    # One that wants to go on reads how it failed, and starts nothing.
    assert await house.submit(replace(asked("a"), after=START)) is first
    second = await house.submit(asked("a"))
    assert second is not first
    await second.finished()
    assert house.runs.get("local", request_id="a") is second
    assert house.runs.get("local", run_id=first.id) is first
    assert await house.submit(asked("a")) is second
    assert house.runs.list("local") == [second, first]
    await house.at_rest()


@pytest.mark.asyncio
async def test_the_end_of_the_grace_counts_as_an_error() -> None:
    house = House(engine(say("one "), Pause(5), stop()))
    first = await house.submit(asked("a"))
    with house.read(first):
        await text_comes(first)
    await first.finished()
    second = await house.submit(asked("a"))
    assert second is not first
    await second.finished()
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_submit_with_a_cursor_never_starts_a_run() -> None:
    house = House(engine(say("one"), stop()))
    with pytest.raises(NotFoundError):
        await house.submit(replace(asked("a"), after=START))
    assert house.runs.list("local") == []
    assert house.engine.started == 0


@pytest.mark.asyncio
async def test_a_cancel_in_advance_is_an_ended_run_that_any_later_submit_reads() -> None:
    house = House(engine(say("one"), stop()))
    cancelled = await house.runs.cancel(house.context, request_id="a")
    assert finish(cancelled) is FinishReason.CANCELLED
    assert cancelled.error is None
    for prompt in ("hi", "something else"):
        assert await house.submit(asked("a", prompt=prompt)) is cancelled
    assert await house.runs.cancel(house.context, request_id="a") is cancelled
    assert house.engine.started == 0
    assert (await house.submit(asked("a"), "other")) is not cancelled
    await house.runs.drain(1)
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_cancel_while_the_prompt_is_rendered_leaves_nothing_to_start() -> None:
    house = slow_house()
    submits = [asyncio.create_task(house.submit(asked("a"))) for _ in range(2)]
    await asyncio.sleep(1)
    cancelled = await house.runs.cancel(house.context, request_id="a")
    assert [await submit for submit in submits] == [cancelled, cancelled]
    assert house.engine.started == 0
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_cancel_while_a_failed_run_is_tried_again_stops_the_new_one() -> None:
    house = House(engine(Fail(BROKEN), tokenizer=SlowTokenizer()))
    failed = await house.submit(asked("a"))
    await failed.finished()
    again = asyncio.create_task(house.submit(asked("a")))
    await asyncio.sleep(1)
    cancelled = await house.runs.cancel(house.context, request_id="a")
    assert cancelled is not failed
    assert await again is cancelled
    assert house.engine.started == 1
    await house.at_rest()


@pytest.mark.asyncio
async def test_cancels_in_advance_are_capped_for_each_tenant_and_the_oldest_is_forgotten() -> None:
    house = House(engine(say("one"), stop()), cancelled_ids=2)
    other = replace(house.context, tenant="other")
    theirs = await house.runs.cancel(other, request_id="a")
    runs = [await house.runs.cancel(house.context, request_id=name) for name in "abc"]
    assert house.runs.list("local") == [runs[2], runs[1]]
    assert house.runs.list("other") == [theirs]
    with pytest.raises(NotFoundError):
        house.runs.get("local", request_id="a")
    await house.at_rest()


@pytest.mark.asyncio
async def test_where_no_cancel_in_advance_is_kept_an_unknown_id_is_not_found() -> None:
    house = House(cancelled_ids=0)
    with pytest.raises(NotFoundError):
        await house.runs.cancel(house.context, request_id="a")
    assert house.runs.list("local") == []


@pytest.mark.asyncio
async def test_a_cancel_in_advance_is_forgotten_after_its_retention_and_not_dropped_before() -> None:
    house = House(engine(say("one"), stop()), journal_bytes=10_000)
    cancelled = await house.runs.cancel(house.context, request_id="a")
    run = await house.submit(asked())
    with pytest.raises(TokenwireError, match="no room"):
        await house.submit(asked())
    assert not cancelled.log.dropped
    await run.finished()
    await asyncio.sleep(301)
    assert (await house.submit(asked("a"))) is not cancelled
    await house.runs.drain(1)
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_submit_that_meets_its_dying_run_waits_for_its_end_and_starts_a_new_one() -> None:
    house = House(engine(say("one"), Pause(5), stop()))
    first = await house.submit(asked("a"))
    with house.runs.reading(first):
        await asyncio.sleep(1)
    assert first.stopped is not None
    assert first.end is None
    second = await house.submit(asked("a"))
    assert second is not first
    assert first.error is not None
    assert first.error.reason == "ORPHANED"
    with house.runs.reading(second):
        await second.finished()
    assert finish(second) is FinishReason.STOP
