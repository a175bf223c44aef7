"""A whole answer from the events of a view."""

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.delivery.collect import Collector
from tokenwire.delivery.view import View
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.generation import CallHead, Piece
from tokenwire.domain.request import ToolCall
from unit.delivery.follower import Follower
from unit.delivery.story import Plot, Story, plots

CALL = Channel(0, ChannelKind.TOOL_CALL, 0)
LATER = Channel(0, ChannelKind.TOOL_CALL, 1)


@given(plot=plots(), part=st.integers(0, 10))
def test_a_collector_has_the_texts_and_ids_that_were_written(plot: Plot, part: int) -> None:
    story = Story(plot)
    view, collector = View(story.log, token_ids=True), Collector()
    for number in range(len(plot.batches)):
        story.tell(number)
        if number == part:
            collector.add(view.take())
    end = story.finish()
    collector.add(view.take())
    assert (collector.end, len(collector.choices)) == (end, plot.choices)
    for choice in collector.choices:
        answer, reasoning = Channel(choice.index), Channel(choice.index, ChannelKind.REASONING)
        assert "".join(choice.text) == story.texts.get(answer, "")
        assert "".join(choice.reasoning) == story.texts.get(reasoning, "")
        ids = [one for fact in story.facts if fact.channel == answer for one in fact.ids]
        trailing = [one for one in end.choices[choice.index].trailing if one.channel == answer]
        assert choice.token_ids == [*ids, *(each for one in trailing for each in one.token_ids)]
        logprobs = [one for fact in story.facts if fact.channel == answer for one in fact.logprobs]
        assert choice.logprobs == [*logprobs, *(each for one in trailing for each in one.logprobs)]


def test_tool_calls_come_by_index_and_a_head_that_is_sent_twice_changes_nothing() -> None:
    heads = [CallHead(channel=channel, id=f"id{channel.index}", name="f") for channel in (LATER, CALL)]
    pieces = [Piece(channel=CALL, text='{"a":'), Piece(channel=LATER, text="{}"), Piece(channel=CALL, text="1}")]
    story = Story(Plot(choices=1, batches=[(0, [*heads, *pieces])])).whole()
    collector = Collector()
    got = Follower(story).to_the_end().got
    collector.add([*got[:3], *got[1:3], *got[3:]])
    assert collector.choices[0].tool_calls == (
        ToolCall(id="id0", name="f", arguments='{"a":1}'),
        ToolCall(id="id1", name="f", arguments="{}"),
    )
