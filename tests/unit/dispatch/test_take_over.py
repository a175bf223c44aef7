"""A run is gone on with from its log alone: after a restart, or by another process."""

import asyncio

import pytest

from tokenwire.dispatch.run import Run, StopCause
from tokenwire.dispatch.strand import Strand
from tokenwire.dispatch.tries import Failover
from tokenwire.dispatch.writer import Writer
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code
from tokenwire.domain.events import Continuation, Dispatched, FinishReason, UsageUpdate
from tokenwire.domain.generation import ChoiceDone, Job, Piece, Prompt, PromptRead, Totals
from tokenwire.domain.request import FailoverPolicy, Output, RunOptions, Sampling, Stopping, Submission
from tokenwire.engines.scripted import Emit, Pause, ScriptedEngine
from tokenwire.engines.toy_model import ToyModel
from tokenwire.journal.log import RunLog
from unit.dispatch.house import House, say, text_of


def piece(text: str, *ids: int, choice: int = 0) -> Piece:
    return Piece(channel=Channel(choice), text=text, token_ids=ids)


def test_a_writer_of_a_log_with_text_knows_what_the_one_before_knew() -> None:
    log = RunLog()
    one = Writer(log, lambda: 7, 2, 6, "Say: ")
    log.append(Dispatched(engine="a", attempt=3, continuation=Continuation.FIRST), 0)
    one.begin({})
    one.write([PromptRead(prompt_tokens=10, cached_tokens=4), piece("a", 1), piece("", 2)], 3)
    one.write(
        [piece("b", 3, 4, choice=1), piece("", 5, choice=1), ChoiceDone(choice=1, finish_reason=FinishReason.STOP)], 3
    )
    two = Writer(log, lambda: 9, 2, 6, "Say: ")
    assert (two.attempt, two.wrote_text, two.open_choices, two.done) == (3, True, [0], False)
    assert (two.prompt.prompt_tokens, two.prompt.cached_tokens) == (10, 4)
    # The token without text is dropped; the one of the choice that has ended is not.
    assert (one.usage().output_tokens, two.usage().output_tokens) == (5, 4)
    two.begin({})
    two.write([PromptRead(prompt_tokens=99, cached_tokens=98), piece("c", 2), piece("d", 6)], 4)
    log_of = log.channel(Channel())
    assert log_of is not None
    assert (bytes(log_of.text), list(log_of.token_ids)) == (b"Say: acd", [1, 2, 6])
    assert (two.usage().prompt_tokens, two.usage().cached_tokens, two.usage().output_tokens) == (10, 4, 6)
    two.write([piece("e", 7), piece("f", 8), piece("g", 9)], 4)
    assert text_in(two) == "Say: acdefg"
    two.write([piece("h", 9)], 4)
    assert (two.overrun, two.was_cut(0), bytes(log_of.text)) == (True, True, b"Say: acdefg")


def test_tokens_that_come_again_are_told_and_counted_once() -> None:
    one = Writer(RunLog(), lambda: 7, 1, None)
    one.begin({})
    one.write([piece("ab", 1, 2, 3)], 1)
    one.begin({0: 2})
    one.write([piece("", 2), piece("c", 3, 4), Totals(output_tokens=3)], 2)
    log = one.log.channel(Channel())
    assert log is not None
    assert (bytes(log.text), list(log.token_ids), one.usage().output_tokens) == (b"abc", [1, 2, 3, 4], 4)


def test_counts_of_answers_side_by_side_are_added_once_all_are_told() -> None:
    one = Writer(RunLog(), lambda: 7, 2, None)
    one.begin({})
    one.write([piece("a", 1), piece("b", 2, choice=1)], 1)
    one.begin({}, 2)
    one.write([piece("c", 3), Totals(output_tokens=5)], 2)
    assert one.usage().output_tokens == 3
    one.write([Totals(output_tokens=6)], 2)
    assert one.usage().output_tokens == 2 + 5 + 6


def test_answers_side_by_side_tell_the_prompt_once_and_without_the_answer_so_far() -> None:
    one = Writer(RunLog(), lambda: 7, 2, None)
    one.begin({})
    one.write([piece("a", 1), piece("b", 2, choice=1)], 1)
    one.begin({}, 2)
    job = Job(run_id="r", model="m", submission=Submission(), prompt=Prompt())
    strands = [Strand(choice, job, None, answer_tokens=choice + 1) for choice in (0, 1)]
    for strand in strands:
        one.write(strand.take([PromptRead(prompt_tokens=10 + strand.choice + 1, cached_tokens=3)]), 2)
    told = [marked.marker for marked in one.log.markers if isinstance(marked.marker, UsageUpdate)]
    assert [(update.usage.prompt_tokens, update.usage.cached_tokens) for update in told] == [(10, 0)]


def text_in(one: Writer) -> str:
    """Returns the text of a writer's first choice, which nothing was cut from."""
    log = one.log.channel(Channel())
    assert log is not None
    assert not one.overrun
    return log.text.decode()


async def broken_off(house: House, asked: Submission, seconds: float) -> Run:
    """Has a run written for a while, and lets it go."""
    run = await house.submit(asked)
    await asyncio.sleep(seconds)
    run.stop(StopCause.HANDOVER)
    await run.finished()
    assert not run.log.closed
    assert run.task is not None
    assert run.task.exception() is None
    return run


def again(house: House, run: Run) -> Run:
    """Returns the run as another process would have it: its request, its prompt, its log."""
    return Run(
        id=run.id,
        tenant=run.tenant,
        model=run.model,
        submission=run.submission,
        prompt=run.prompt,
        engine=None,
        log=run.log,
        share=run.share,
        grace=None,
        stop_seconds=1.0,
        received_at=0.0,
        clock=house.clock,
    )


ASKED = Submission(
    prompt="hi",
    sampling=Sampling(n=2),
    stopping=Stopping(max_tokens=30),
    output=Output(echo=True),
    run=RunOptions(detached=True),
)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.5, 8.5, 29.5])
@pytest.mark.asyncio
async def test_it_becomes_the_unbroken_run(seconds: float) -> None:
    toy = ToyModel(seconds=1.0)
    whole = House(toy.engine("a"), failover=Failover())
    unbroken = await whole.submit(ASKED)
    await unbroken.finished()
    first, second = (House(toy.engine(name), failover=Failover()) for name in "ab")
    run = again(second, await broken_off(first, ASKED, seconds))
    await second.dispatcher.execute(run)
    assert run.error is None
    assert [text_of(run, choice) for choice in (0, 1)] == [text_of(unbroken, choice) for choice in (0, 1)]
    assert run.end is not None
    assert unbroken.end is not None
    assert run.end.usage == unbroken.end.usage
    assert run.end.choices == unbroken.end.choices
    told = [marked.marker for marked in run.log.markers if isinstance(marked.marker, Dispatched)]
    assert [one.attempt for one in told] == list(range(1, len(told) + 1))


@pytest.mark.asyncio
async def test_a_run_whose_choices_have_all_ended_needs_no_engine() -> None:
    toy = ToyModel(seconds=1.0)
    house = House(toy.engine("a"), failover=Failover())
    run = await broken_off(house, ASKED, 5.5)
    for choice in (0, 1):
        run.writer.finish(choice, FinishReason.STOP)
    other = House(toy.engine("b"), failover=Failover())
    last = again(other, run)
    await other.dispatcher.execute(last)
    assert last.error is None
    assert other.engine.started == 0


@pytest.mark.parametrize("policy", [FailoverPolicy.NONE, FailoverPolicy.BEFORE_FIRST_TOKEN])
@pytest.mark.asyncio
async def test_a_run_with_text_that_is_not_to_be_gone_on_with_ends_and_says_so(policy: FailoverPolicy) -> None:
    toy = ToyModel(seconds=1.0)
    house = House(toy.engine("a"), failover=Failover(policy=policy))
    run = again(house, await broken_off(house, ASKED, 5.5))
    await house.dispatcher.execute(run)
    assert run.error is not None
    assert (run.error.code, run.error.reason) == (Code.DATA_LOSS, "CONTINUATION_UNSUPPORTED")
    assert run.error.metadata == {"continuation_refused": "run.failover"}


@pytest.mark.parametrize("seconds", [0.5, 5.5])
@pytest.mark.asyncio
async def test_a_run_whose_journal_cannot_be_written_ends_as_lost(seconds: float) -> None:
    house = House(ToyModel(seconds=1.0).engine("a"))
    run = await house.submit(ASKED)
    await asyncio.sleep(seconds)
    run.stop(StopCause.JOURNAL)
    await run.finished()
    assert run.error is not None
    assert run.error.reason == "JOURNAL_UNAVAILABLE"
    assert run.error.code is (Code.DATA_LOSS if seconds > 1 else Code.UNAVAILABLE)
    assert run.error.retryable


@pytest.mark.asyncio
async def test_a_model_that_no_engine_has_told_yet_is_waited_for() -> None:
    toy = ToyModel(seconds=1.0)
    run = await broken_off(House(toy.engine("a"), failover=Failover()), ASKED, 5.5)
    b = toy.engine("b")
    models, b.status.models = b.status.models, ()
    house = House(b, failover=Failover())
    last = again(house, run)
    task = asyncio.create_task(house.dispatcher.execute(last))
    await asyncio.sleep(10)
    assert not task.done()
    b.status.set(b.status.state, models)
    await task
    assert last.error is None


@pytest.mark.asyncio
async def test_a_prompt_that_was_kept_as_another_engine_reads_it_is_read_again() -> None:
    toy = ToyModel(seconds=1.0)
    house = House(toy.engine("a"), failover=Failover())
    whole = await house.submit(ASKED)
    await whole.finished()
    run = again(house, await broken_off(house, ASKED, 8.5))
    # It was accepted for an engine that was never asked.
    run.prompt = Prompt(text="hi", token_ids=(72, 72), tokens=2)
    await house.dispatcher.execute(run)
    assert text_of(run) == text_of(whole)


@pytest.mark.asyncio
async def test_the_prompt_s_tokens_are_kept_as_the_engine_told_them() -> None:
    steps = [Emit((PromptRead(prompt_tokens=2, cached_tokens=0, token_ids=(7, 8)),)), say("a"), Pause(None)]
    reads = ScriptedEngine("a", script=lambda job: steps)
    reads.takes_ids, reads.tokenizer = False, None
    run = await broken_off(House(reads), Submission(prompt="hi", run=RunOptions(detached=True)), 1.0)
    assert (run.prompt.text, run.prompt.token_ids, run.prompt.tokens) == ("hi", (7, 8), 2)
