"""What a reader is told beside the run itself: heartbeats, farewells, and that it does not read."""

import asyncio
import json
from collections.abc import Coroutine, Generator
from typing import Any, cast

import pytest

from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import Delta, Detached, DetachReason, End, Heartbeat, Progress, RunError, Start
from tokenwire.domain.generation import PrefillProgress
from tokenwire.domain.request import Buffering, BufferingMode, Delivery
from tokenwire.journal.log import RunLog
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.watch import StreamLimits
from unit.rpc.streams import Readings, SlowCall, WrittenRun

LIMITS = StreamLimits(heartbeat=10.0, stall=30.0, resume=45.0)
TEXT = Channel()


class Read:
    """A reader's stream of a run, under way."""

    def __init__(self, run: WrittenRun, call: SlowCall | None = None, after: Cursor | None = None) -> None:
        self.run, self.call, self.readings = run, call or SlowCall(), Readings()
        reader = Reader(cast("Any", self.readings), LIMITS)
        stream = reader.stream(cast("Any", run), after, self.call)
        self.task = asyncio.get_running_loop().create_task(stream)

    async def until(self, second: float) -> None:
        """Lets time pass."""
        await asyncio.sleep(second - asyncio.get_running_loop().time())

    def say(self, text: str, channel: Channel = TEXT) -> None:
        """Writes a text."""
        self.run.log.append_text(channel, text, self.run.elapsed_ms())
        self.run.log.wake()

    async def refusal(self) -> TokenwireError:
        """Reads to the end, which must be a bad one."""
        with pytest.raises(TokenwireError) as caught:
            await self.task
        assert self.readings.now == 0
        return caught.value


@pytest.mark.asyncio
async def test_a_reader_hears_in_silence_that_its_stream_lives_even_while_nothing_runs_yet() -> None:
    read = Read(WrittenRun())
    await read.until(25.0)
    read.say("a")
    await read.until(36.0)
    read.run.finish()
    await read.task
    times = [(at, message.event, message.cursor.seq, message.elapsed_ms) for at, message in read.call.got]
    beats = [(at, seq, ms) for at, event, seq, ms in times if isinstance(event, Heartbeat)]
    assert beats == [(10.0, 1, 10_000), (20.0, 1, 20_000), (35.0, 2, 35_000)]
    assert [type(event) for event in read.call.events if not isinstance(event, Heartbeat)] == [Start, Delta, End]


@pytest.mark.asyncio
async def test_text_that_is_held_back_breaks_no_silence_and_progress_does() -> None:
    call = SlowCall()
    call.delivery = Delivery(buffering={ChannelKind.TEXT: Buffering(mode=BufferingMode.SIZE, size=100)})
    read = Read(WrittenRun(), call)
    for second in range(1, 15):
        await read.until(second)
        read.say("x")
    read.run.writer.prefill = PrefillProgress(prompt_tokens=9, cached_tokens=0, done_tokens=3)
    read.run.log.notify()
    await read.until(24.5)
    read.run.finish()
    await read.task
    told = [(at, type(message.event)) for at, message in read.call.got]
    assert told == [(0.0, Start), (10.0, Heartbeat), (14.0, Progress), (24.0, Heartbeat), (24.5, Delta), (24.5, End)]


@pytest.mark.asyncio
async def test_a_heartbeat_repeats_the_last_cursor() -> None:
    run = WrittenRun(RunLog(epoch=3))
    read = Read(run, after=Cursor(1))
    await read.until(15.0)
    call, channel = read.call, Channel(0, ChannelKind.REASONING)
    read.say("b", channel)
    await read.until(30.0)
    run.finish()
    await read.task
    assert [message.cursor for _, message in call.got[:3]] == [Cursor(1), Cursor(2, (), 3), Cursor(2, (), 3)]


@pytest.mark.asyncio
async def test_a_client_that_reads_no_more_is_cut_and_told_what_it_has_for_sure() -> None:
    run = WrittenRun(RunLog(epoch=2), grace=0.0)
    read = Read(run)
    await read.until(1.0)
    read.say("has it")
    await read.until(2.0)
    read.call.seconds = None
    read.say("may get it")
    await read.until(3.0)
    read.say("gets it later")
    told = await read.refusal()
    assert asyncio.get_running_loop().time() == 32.0
    assert (told.code, told.reason, told.retryable) == (Code.ABORTED, "SLOW_CONSUMER", True)
    assert told.metadata["run_id"] == "r1"
    assert json.loads(told.metadata["cursor"]) == {"seq": 2, "epoch": 2}
    assert told.metadata["resume_within_ms"] == "45000"
    assert read.readings.detached == [45.0], "the run waits for it"
    assert run.end is None


@pytest.mark.asyncio
async def test_a_client_that_is_slow_but_reads_is_never_cut_and_gets_what_gathered_at_once() -> None:
    read = Read(WrittenRun(), SlowCall(seconds=29.0))
    for second in range(200):
        await read.until(second)
        read.say(f"{second} ")
    read.run.finish()
    await read.task
    texts = [event.text for event in read.call.events if isinstance(event, Delta)]
    assert "".join(texts) == "".join(f"{second} " for second in range(200))
    assert len(texts) < 12
    assert not any(isinstance(event, Heartbeat) for event in read.call.events), "what gathered goes out at once"
    assert read.readings.detached == [0.0], "it left by itself"


@pytest.mark.asyncio
async def test_a_cursor_in_a_status_says_how_far_each_channel_is() -> None:
    call = SlowCall()
    call.delivery = Delivery(buffering={ChannelKind.REASONING: Buffering(mode=BufferingMode.SIZE, size=50)})
    read = Read(WrittenRun(), call)
    await read.until(1.0)
    read.say("held", Channel(0, ChannelKind.REASONING))
    read.say("sent")
    await read.until(2.0)
    call.seconds = None
    read.say("never")
    told = await read.refusal()
    assert json.loads(told.metadata["cursor"]) == {"seq": 1, "ahead": [{"byteOffset": 4}]}


@pytest.mark.parametrize("grace", [0.0, 20.0, 90.0, None])
@pytest.mark.asyncio
async def test_a_reader_of_a_run_that_is_handed_over_gets_what_is_there_and_is_told_to_come_back(
    grace: float | None,
) -> None:
    run = WrittenRun(grace=grace)
    read = Read(run)
    await read.until(1.0)
    run.log.append_text(TEXT, "the last", 1000)
    run.log.publish(run.log.head)
    run.hand_over()
    told = await read.refusal()
    assert [type(event) for event in read.call.events] == [Start, Delta, Detached]
    farewell = read.call.events[-1]
    within = max(45_000, int((grace or 0) * 1000))
    assert farewell == Detached(reason=DetachReason.DRAINING, resume_within_ms=within, retry_after_ms=1000)
    assert read.call.got[-1][1].cursor == Cursor(2)
    assert (told.code, told.reason, told.retryable, told.retry_after) == (Code.UNAVAILABLE, "DRAINING", True, 1.0)
    assert told.metadata == {"run_id": "r1", "cursor": '{"seq": 2}'}


@pytest.mark.asyncio
async def test_what_is_not_committed_is_not_told_to_a_reader_that_is_sent_away() -> None:
    log = RunLog(lambda log: None, epoch=1)
    run = WrittenRun(log)
    log.publish(1)
    read = Read(run)
    await read.until(1.0)
    read.say("written")
    log.publish(2)
    read.say(" lost")
    await read.until(2.0)
    run.hand_over(DetachReason.MOVED)
    told = await read.refusal()
    assert [event.text for event in read.call.events if isinstance(event, Delta)] == ["written"]
    assert (told.code, told.reason, told.retry_after) == (Code.UNAVAILABLE, "MOVED", 0.1)
    assert json.loads(told.metadata["cursor"]) == {"seq": 2, "epoch": 1}


@pytest.mark.asyncio
async def test_a_run_whose_end_comes_during_the_farewell_still_ends_the_stream_as_unavailable() -> None:
    run = WrittenRun()
    read = Read(run, SlowCall(seconds=1.0))
    await read.until(5.0)
    run.hand_over()
    await read.until(5.5)
    run.finish()
    told = await read.refusal()
    assert (told.code, isinstance(read.call.events[-1], Detached)) == (Code.UNAVAILABLE, True)


@pytest.mark.asyncio
async def test_an_answer_is_waited_for_until_its_end_is_committed_whoever_writes_it() -> None:
    log = RunLog(lambda log: None, epoch=1)
    run, readings = WrittenRun(log), Readings()
    waiting = asyncio.create_task(Reader(cast("Any", readings), LIMITS).result(cast("Any", run)))
    await asyncio.sleep(1)
    assert readings.now == 1
    log.append_text(TEXT, "all of it", 1000)
    run.finish()
    await asyncio.sleep(50)
    assert not waiting.done()
    log.publish(log.head)
    result = await waiting
    assert (result.run_id, readings.now) == ("r1", 0)


class Steps:
    """Counts how often whoever awaits it is put to sleep."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.taken = 0

    def __await__(self) -> Generator[Any, None, Any]:
        inner = self.coroutine.__await__()
        while True:
            try:
                future = next(inner)
            except StopIteration as done:
                return done.value
            self.taken += 1
            yield future


@pytest.mark.asyncio
async def test_no_token_wakes_whoever_waits_for_the_whole_answer() -> None:
    run = WrittenRun()
    steps = Steps(Reader(cast("Any", Readings()), LIMITS).result(cast("Any", run)))

    async def read() -> Any:
        return await steps

    waiting = asyncio.create_task(read())
    for second in range(10):
        await asyncio.sleep(1)
        run.log.append_text(TEXT, "more ", second * 1000)
        run.log.wake()
    run.finish()
    assert (await waiting).choices[0].text == "more " * 10
    assert steps.taken == 1


@pytest.mark.asyncio
async def test_an_answer_that_is_handed_over_is_unavailable_and_one_that_failed_has_its_error() -> None:
    handed, failed = WrittenRun(), WrittenRun()
    handed.log.append_text(TEXT, "some", 1)
    handed.hand_over()
    failed.finish(RunError(code=Code.DATA_LOSS, reason="ENGINE_LOST", message="lost"))
    for run, code, reason, cursor in (
        (handed, Code.UNAVAILABLE, "DRAINING", 0),
        (failed, Code.DATA_LOSS, "ENGINE_LOST", 2),
    ):
        with pytest.raises(TokenwireError) as caught:
            await Reader(cast("Any", Readings()), LIMITS).result(cast("Any", run))
        assert (caught.value.code, caught.value.reason) == (code, reason)
        assert json.loads(caught.value.metadata["cursor"]) == {"seq": cursor}
