"""How long a run lives: readers, grace, limits, cancels, retention, shutdown."""

import asyncio

import pytest

from tokenwire.dispatch.run import Run, StopCause
from tokenwire.domain.errors import Code, EngineError, NotFoundError, TokenwireError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import Job, Tell
from tokenwire.domain.request import Limits
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine
from unit.dispatch.house import House, asked, engine, say, stop, text_comes, text_of


def slow(seconds: float = 10) -> House:
    """Returns a house whose engine writes two words, and pauses between them."""
    return House(engine(say("one "), Pause(seconds), say("two"), stop()))


async def read_a_word(house: House, run: Run) -> None:
    with house.read(run):
        await text_comes(run)


def outcome(run: Run) -> tuple[str, FinishReason]:
    assert run.end is not None
    return (run.error.reason if run.error else "", run.end.choices[0].finish_reason)


@pytest.mark.asyncio
async def test_without_grace_a_run_stops_with_its_last_reader() -> None:
    house = slow()
    run = await house.submit(asked())
    with house.read(run):
        await read_a_word(house, run)
        assert run.stopped is None
    await run.finished()
    assert outcome(run) == ("ORPHANED", FinishReason.ERROR)
    assert run.error is not None
    assert (run.error.code, run.error.retryable) == (Code.ABORTED, True)
    assert run.elapsed_ms() == 0
    assert house.engine.stopped == 1
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_run_waits_for_a_reader_for_its_grace() -> None:
    house = slow(seconds=25)
    run = await house.submit(asked(orphan_grace=20.0))
    await read_a_word(house, run)
    await run.finished()
    assert outcome(run) == ("ORPHANED", FinishReason.ERROR)
    assert run.elapsed_ms() == 20_000
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_reader_within_the_grace_goes_on_and_the_grace_begins_anew_when_it_leaves() -> None:
    house = slow(seconds=25)
    run = await house.submit(asked(orphan_grace=20.0))
    await read_a_word(house, run)
    await asyncio.sleep(19)
    await read_a_word(house, run)
    await asyncio.sleep(5)
    assert await house.read_to_the_end(run) == "one two"
    assert outcome(run) == ("", FinishReason.STOP)
    await house.at_rest()


@pytest.mark.parametrize(("asked_for", "grace"), [(None, 7), (3.0, 3), (1000.0, 60)])
@pytest.mark.asyncio
async def test_the_server_s_grace_is_the_default_and_its_maximum_the_bound(asked_for: float | None, grace: int) -> None:
    house = House(engine(say("one "), *([Pause(29), say("two ")] * 4), stop()), orphan_grace=7.0)
    run = await house.submit(asked(orphan_grace=asked_for))
    await read_a_word(house, run)
    await run.finished()
    assert run.elapsed_ms() == grace * 1000
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_detached_run_goes_on_to_its_end() -> None:
    house = slow()
    run = await house.submit(asked(detached=True, orphan_grace=0.0))
    await read_a_word(house, run)
    await run.finished()
    assert (text_of(run), outcome(run)) == ("one two", ("", FinishReason.STOP))
    await house.at_rest()


@pytest.mark.parametrize(("asked_for", "seconds"), [(5.0, 5), (1e6, 3600)])
@pytest.mark.asyncio
async def test_the_time_limit_is_a_finish_reason_and_keeps_the_text(asked_for: float, seconds: int) -> None:
    house = House(engine(say("one "), *([Pause(20), say("more ")] * 1000), stop()))
    run = await house.submit(asked(limits=Limits(max_duration=asked_for)))
    await run.finished()
    assert outcome(run) == ("", FinishReason.TIME_LIMIT)
    assert run.elapsed_ms() == seconds * 1000
    assert text_of(run).startswith("one ")
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_cancel_answers_when_the_run_has_ended_and_its_text_stays() -> None:
    house = slow()
    run = await house.submit(asked())
    await text_comes(run)
    assert await house.runs.cancel(house.context, run_id=run.id) is run
    assert (text_of(run), outcome(run)) == ("one ", ("", FinishReason.CANCELLED))
    end = run.end
    assert await house.runs.cancel(house.context, run_id=run.id) is run
    assert run.end is end
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_cancel_before_the_run_s_first_step_still_writes_its_end() -> None:
    house = slow()
    run = await house.submit(asked())
    assert not run.begun
    await house.runs.cancel(house.context, run_id=run.id)
    assert outcome(run) == ("", FinishReason.CANCELLED)
    assert house.engine.started == 0
    await house.at_rest()


@pytest.mark.asyncio
async def test_the_first_cause_of_a_stop_counts() -> None:
    house = slow()
    run = await house.submit(asked())
    with house.read(run):
        await text_comes(run)
        run.stop(StopCause.CANCEL)
    run.stop(StopCause.SHUTDOWN)
    await run.finished()
    assert outcome(run) == ("", FinishReason.CANCELLED)
    await house.at_rest()


class Failing(ScriptedEngine):
    """Its connection breaks when it is closed."""

    async def generate(self, job: Job, tell: Tell) -> None:
        """Waits, and fails when it is told to stop."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise self.error from None

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@pytest.mark.parametrize("error", [EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "lost"), OSError("closed")])
@pytest.mark.asyncio
async def test_an_engine_that_fails_while_it_is_stopped_does_not_hide_the_cause(error: Exception) -> None:
    house = House(Failing(error))
    run = await house.submit(asked(limits=Limits(max_duration=5.0)))
    await run.finished()
    assert outcome(run) == ("", FinishReason.TIME_LIMIT)
    await house.at_rest()


@pytest.mark.asyncio
async def test_ids_that_are_unknown_or_another_tenant_s_are_the_same_to_a_caller() -> None:
    house = slow()
    run = await house.submit(asked("mine"))
    messages = set()
    for tenant, run_id, request_id in (("other", run.id, ""), ("local", "no", ""), ("other", "", "mine")):
        with pytest.raises(NotFoundError) as caught:
            house.runs.get(tenant, run_id=run_id, request_id=request_id)
        messages.add((caught.value.message, caught.value.reason))
    assert len(messages) == 1
    with pytest.raises(NotFoundError):
        await house.runs.cancel(house.context, run_id="no")
    assert house.runs.list("other") == []
    await run.finished()
    await house.at_rest()


@pytest.mark.asyncio
async def test_after_its_retention_a_run_is_forgotten_and_its_request_id_is_free() -> None:
    house = slow()
    run = await house.submit(asked("a", detached=True))
    await run.finished()
    assert run.ended_at is not None
    assert run.expires_at == run.ended_at + 300
    await asyncio.sleep(299)
    assert house.runs.get("local", request_id="a") is run
    await asyncio.sleep(2)
    for name in ({"run_id": run.id}, {"request_id": "a"}):
        with pytest.raises(NotFoundError):
            house.runs.get("local", **name)
    assert house.journal.held == 0
    again = await house.submit(asked("a", detached=True))
    assert again is not run
    await again.finished()
    await house.at_rest()


@pytest.mark.asyncio
async def test_what_has_ended_keeps_neither_its_prompt_nor_its_task_nor_a_timer() -> None:
    house = slow()
    run = await house.submit(asked("a", prompt="secret" * 1000, labels={"k": "v"}))
    await run.finished()
    assert "secret" not in repr((run.submission, run.prompt))
    assert (run.request_id, run.submission.run.labels) == ("a", {"k": "v"})
    assert run.task is None
    assert run.duration_timer is not None
    assert run.duration_timer.cancelled()
    assert await house.submit(asked("a", prompt="secret" * 1000, labels={"k": "v"})) is run
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_drain_lets_runs_end_refuses_new_ones_and_then_ends_the_rest_with_an_error() -> None:
    house = House(engine(say("one "), Pause(10), say("two"), stop()))
    quick = await house.submit(asked())
    await asyncio.sleep(5)
    slow_one = await house.submit(asked())
    await text_comes(slow_one)
    drained = asyncio.create_task(house.runs.drain(7))
    await asyncio.sleep(0)
    with pytest.raises(TokenwireError, match="shutting down"):
        await house.submit(asked())
    await drained
    assert outcome(quick) == ("", FinishReason.STOP)
    assert outcome(slow_one) == ("SHUTTING_DOWN", FinishReason.ERROR)
    assert slow_one.error is not None
    assert slow_one.error.code is Code.DATA_LOSS
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_drain_of_a_run_without_text_says_unavailable() -> None:
    house = House(engine(Pause(10), say("one"), stop()))
    run = await house.submit(asked())
    await house.runs.drain(0)
    assert run.error is not None
    assert run.error.code is Code.UNAVAILABLE
    await house.at_rest()


@pytest.mark.asyncio
async def test_a_refusal_makes_no_run() -> None:
    house = House(engine(Fail(ValueError())), journal_bytes=1000)
    with pytest.raises(TokenwireError) as caught:
        await house.submit(asked("a"))
    assert caught.value.reason == "JOURNAL_FULL"
    assert house.runs.list("local") == []
    with pytest.raises(NotFoundError):
        house.runs.get("local", request_id="a")
    await house.at_rest()
