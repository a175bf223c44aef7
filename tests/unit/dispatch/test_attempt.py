"""What engines tell many tokens at a time, in one attempt and across several."""

from typing import Any

import pytest

from tokenwire.dispatch.run import Run
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import Continuation, Dispatched, FinishReason
from tokenwire.domain.generation import Pieces
from tokenwire.domain.request import Limits, Sampling, Stopping
from tokenwire.engines.scripted import Cut, Emit, Pause, ScriptedEngine, Step
from unit.dispatch.house import House, asked, say, stop, text_of


def many(*texts: str, choice: int = 0) -> Step:
    """Returns a step that writes several texts at once, each of one token."""
    return Emit((Pieces(channel=Channel(choice), texts=list(texts), token_ids=[(5,)] * len(texts)),))


def engine(name: str, script: list[Step]) -> ScriptedEngine:
    """Returns an engine that plays one script again and again."""
    return ScriptedEngine(name, script=lambda _: script)


async def ended(*scripts: list[Step], **fields: Any) -> Run:
    """Runs a request on engines that play one script each, the next where the last one ends early."""
    engines = tuple(engine(f"e{place}", one) for place, one in enumerate(scripts))
    house = House(engines[0], engines=engines, failover=Failover())
    run = await house.submit(asked(detached=True, **fields))
    await run.finished()
    return run


@pytest.mark.asyncio
async def test_many_tokens_at_once_are_an_event_each() -> None:
    run = await ended([say("a"), many("b", "c", "d"), stop()])
    assert (text_of(run), run.error) == ("abcd", None)
    (channel,) = run.log.channels
    assert list(channel.ends) == list(channel.tokens) == [1, 2, 3, 4]
    assert run.usage.output_tokens == 4


@pytest.mark.asyncio
async def test_they_are_a_first_token_as_well() -> None:
    run = await ended([many("a", "b"), Pause(5.0), stop()], limits=Limits(first_token_timeout=2.0, stall_timeout=9.0))
    assert run.error is None


@pytest.mark.asyncio
async def test_they_are_cut_where_the_request_s_limit_is() -> None:
    run = await ended([many("a", "b", "c"), Pause(1000.0)], stopping=Stopping(max_tokens=2))
    assert run.end is not None
    assert (text_of(run), run.end.choices[0].finish_reason) == ("ab", FinishReason.LENGTH)


@pytest.mark.asyncio
async def test_engines_that_go_on_with_the_choices_of_an_answer_may_tell_them() -> None:
    begun = [many("a", "b"), many("A", "B", choice=1), Cut()]
    run = await ended(begun, [many("c", "d"), stop()], sampling=Sampling(n=2, temperature=0.0))
    assert run.error is None
    assert [log.text for log in run.log.channels] == [b"abcd", b"ABcd"]
    goes_on = [one.marker.continuation for one in run.log.markers if isinstance(one.marker, Dispatched)]
    assert goes_on == [Continuation.FIRST, Continuation.BY_TEXT]
