"""A stream whose text is written where it is committed, while its task sleeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from tokenwire.delivery.view import View
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import Delta, Detached, Heartbeat, UsageUpdate
from tokenwire.domain.events import Usage as Counts
from tokenwire.rpc.stream import Stream
from tokenwire.rpc.watch import StalledError, StreamLimits, Watch
from tokenwire.transport.call import ClientGoneError, Done
from unit.rpc.streams import SlowCall, WrittenRun

LIMITS = StreamLimits(heartbeat=10.0, stall=30.0)


class HeldCall(SlowCall):
    """A call whose writes without a task end when the test says so; those of a task end at once."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[Done] = []
        self.refuses: Exception | None = None

    def begin_write(self, message: object, done: Done) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.got.append((0.0, message))
        self.under_way.append(done)

    async def write(self, message: object) -> None:
        assert not self.under_way, "one write at a time"
        await super().write(message)

    def end(self, error: BaseException | None = None) -> None:
        """Ends the write under way."""
        done = self.under_way.pop()
        if error is None:
            self.messages += 1
        done(error)

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Delta)]


class House:
    """A run, and a stream of it whose task sleeps."""

    def __init__(self, run: WrittenRun, call: HeldCall, stream: Stream, task: "asyncio.Task[None]") -> None:
        self.run = run
        self.call = call
        self.stream = stream
        self.task = task

    def say(self, text: str, channel: Channel = Channel()) -> None:  # noqa: B008 - it cannot be changed
        """Commits text."""
        self.run.log.append_text(channel, text, 1, (7,), 1)
        self.run.log.wake()

    async def rest(self) -> None:
        """Lets the task do what it can."""
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def streaming() -> AsyncIterator[House]:
    run, call = WrittenRun(), HeldCall()
    stream = Stream(cast("Run", run), View(run.log), 30.0)

    async def serve() -> None:
        with Watch(call, LIMITS) as watch:
            await stream.write_to(call, watch)

    task = asyncio.create_task(serve())
    house = House(run, call, stream, task)
    await house.rest()
    house.say("first")
    await house.rest()
    # The first text opens its channel, which is the task's work.
    assert call.texts == ["first"]
    yield house
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.asyncio
async def test_new_text_is_on_its_way_before_the_commit_returns() -> None:
    async with streaming() as house:
        house.say(" second")
        assert house.call.texts == ["first", " second"]
        assert house.stream.cursor == Cursor(2)
        house.call.end()
        assert house.stream.cursor == Cursor(3)
        house.say(" third")
        house.call.end()
        assert (house.call.texts, house.call.messages) == (["first", " second", " third"], 4)


@pytest.mark.asyncio
async def test_text_that_comes_during_a_write_follows_it_in_one_message() -> None:
    async with streaming() as house:
        for text in ("a", "b", "c"):
            house.say(text)
        assert house.call.texts == ["first", "a"]
        house.call.end()
        assert house.call.texts == ["first", "a", "bc"]
        house.call.end()
        assert not house.call.under_way


@pytest.mark.asyncio
async def test_what_is_no_text_of_the_one_channel_waits_for_the_write_and_is_the_task_s() -> None:
    async with streaming() as house:
        house.say("a")
        house.run.log.append(UsageUpdate(attempt=1, usage=Counts()), 2)
        house.say("thought", Channel(0, ChannelKind.REASONING))
        await house.rest()
        assert house.call.texts == ["first", "a"]
        house.call.end()
        await house.rest()
        assert house.call.texts == ["first", "a", "thought"]
        assert isinstance(house.call.events[-2], UsageUpdate)


@pytest.mark.asyncio
async def test_the_end_comes_after_the_text_that_is_being_written() -> None:
    async with streaming() as house:
        house.say("a")
        house.run.finish()
        await house.rest()
        assert not house.task.done()
        house.call.end()
        await house.task
        assert house.call.texts == ["first", "a"]
        assert house.stream.cursor == Cursor(4)


@pytest.mark.asyncio
@pytest.mark.parametrize("with_text", [False, True])
async def test_a_reader_is_sent_away_after_the_text_that_is_being_written(with_text: bool) -> None:
    async with streaming() as house:
        house.say("a")
        if with_text:
            house.run.log.append_text(Channel(), "b", 1)
            house.run.log.publish(house.run.log.head)
        house.run.hand_over()
        house.call.end()
        with pytest.raises(TokenwireError):
            await house.task
        assert "".join(house.call.texts) == ("firstab" if with_text else "firsta")
        assert isinstance(house.call.events[-1], Detached)


@pytest.mark.asyncio
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_write_that_fails_ends_the_stream_with_its_error(at_once: bool) -> None:
    async with streaming() as house:
        if at_once:
            house.call.refuses = ClientGoneError()
        house.say("a")
        if not at_once:
            house.call.end(ClientGoneError())
        with pytest.raises(ClientGoneError):
            await house.task
        # Who appends has nothing to do with it.
        house.say("b")
        assert house.stream.cursor == Cursor(2)


@pytest.mark.asyncio
async def test_a_client_that_does_not_take_such_a_message_is_cut_and_has_what_came_before_for_sure() -> None:
    async with streaming() as house:
        began = asyncio.get_running_loop().time()
        house.say("a")
        with pytest.raises(StalledError):
            await house.task
        assert asyncio.get_running_loop().time() - began == LIMITS.stall
        assert house.stream.cursor == Cursor(2)


@pytest.mark.asyncio
async def test_such_a_message_puts_the_heartbeat_off_and_no_other_is_due_before() -> None:
    async with streaming() as house:
        await asyncio.sleep(9)
        house.say("a")
        house.call.end()
        await asyncio.sleep(9)
        assert not any(isinstance(event, Heartbeat) for event in house.call.events)
        await asyncio.sleep(2)
        assert isinstance(house.call.events[-1], Heartbeat)
        # And goes on as before.
        house.say("b")
        assert house.call.texts[-1] == "b"


@pytest.mark.asyncio
async def test_a_stream_that_has_ended_hears_of_no_change() -> None:
    async with streaming() as house:
        house.say("a")
        house.task.cancel()
        await asyncio.wait([house.task])
        house.say("b")
        house.call.end()
        assert house.call.texts == ["first", "a"]
        assert house.run.log._listeners == ()
