"""What an engine tells becomes canonical events; what it must not tell is a failure."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.dispatch.writer import EVENT_LOGPROBS, Writer
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason, PromptTokens, TokenLogprob, ToolCallHead, Usage, UsageUpdate
from tokenwire.domain.generation import (
    CallHead,
    ChoiceDone,
    Generated,
    Piece,
    Pieces,
    PrefillProgress,
    PromptLogprobs,
    PromptRead,
    Totals,
    taken_apart,
)
from tokenwire.journal.log import RunLog

TEXT, REASONING, CALL = Channel(), Channel(0, ChannelKind.REASONING), Channel(0, ChannelKind.TOOL_CALL)


def writer(choices: int = 1, max_tokens: int | None = None) -> Writer:
    return Writer(RunLog(), lambda: 7, choices, max_tokens)


def piece(text: str, *ids: int, channel: Channel = TEXT, count: int | None = None) -> Piece:
    told = tuple(TokenLogprob(token_id=one, token="", logprob=-1.0) for one in ids)
    return Piece(channel=channel, text=text, token_ids=ids, token_count=count, logprobs=told)


def done(choice: int = 0, reason: FinishReason = FinishReason.STOP) -> ChoiceDone:
    return ChoiceDone(choice=choice, finish_reason=reason)


def text_of(one: Writer, channel: Channel = TEXT) -> str:
    log = one.log.channel(channel)
    return log.text.decode() if log else ""


def test_tokens_without_text_wait_for_the_next_text_of_their_own_channel() -> None:
    one = writer()
    one.write([piece("", 1), piece("", 2, 3), piece("r", 4, channel=REASONING), piece("é", 5)], 1)
    log = one.log.channel(TEXT)
    assert log is not None
    assert (list(log.seqs), list(log.tokens), list(log.token_ids)) == ([2], [4], [1, 2, 3, 5])
    assert [logprob.token_id for logprob in log.logprobs[0]] == [1, 2, 3, 5]


def test_tokens_that_never_get_text_go_into_the_end_of_their_choice() -> None:
    one = writer(choices=2)
    held = [piece("", 2), piece("", 3), piece("", 5, channel=REASONING)]
    one.write([piece("a", 1), *held, piece("b", 4, channel=Channel(1)), done(0), done(1)], 1)
    trailing = [[(each.channel, each.token_ids) for each in one.ends[choice].trailing] for choice in (0, 1)]
    assert trailing == [[(TEXT, (2, 3)), (REASONING, (5,))], []]
    assert [logprob.token_id for logprob in one.ends[0].trailing[0].logprobs] == [2, 3]
    assert one.usage().output_tokens == 5


def test_heads_and_the_read_prompt_are_events_without_text() -> None:
    one = writer()
    one.write([PromptRead(prompt_tokens=5, cached_tokens=2), CallHead(channel=CALL, id="i", name="n")], 3)
    assert [marked.marker for marked in one.log.markers] == [
        UsageUpdate(attempt=3, usage=Usage(prompt_tokens=5, cached_tokens=2)),
        ToolCallHead(channel=CALL, id="i", name="n"),
    ]
    assert [marked.at_ms for marked in one.log.markers] == [7, 7]


def test_an_engine_that_writes_more_than_it_was_asked_for_is_cut() -> None:
    one = writer(max_tokens=3)
    one.write([piece("a", 1), piece("b", 2, channel=REASONING), piece("", 3)], 1)
    assert not one.overrun
    one.write([piece("c", 4), piece("d", 5), CallHead(channel=CALL, id="i", name="n"), done()], 1)
    assert (one.overrun, one.done, text_of(one), text_of(one, REASONING)) == (True, True, "a", "b")
    assert one.ends[0].finish_reason is FinishReason.LENGTH
    assert [each.token_ids for each in one.ends[0].trailing] == [(3,)]
    assert one.log.markers == []


_texts = st.lists(st.tuples(st.sampled_from("aé水"), st.lists(st.integers(0, 9), max_size=2)), min_size=1, max_size=6)
_pieces = st.builds(
    lambda channel, told: Pieces(channel=channel, texts=[text for text, _ in told], token_ids=[ids for _, ids in told]),
    st.sampled_from([TEXT, TEXT, TEXT, REASONING, Channel(1)]),
    _texts,
)
_others = st.sampled_from([piece("", 3, channel=TEXT), piece("", 4, channel=REASONING), piece("a", 5), done(1)])


@given(
    st.lists(st.lists(_pieces | _pieces | _others, max_size=4), max_size=4),
    st.sampled_from([None, 3, 30]),
    st.sampled_from(["", "Say: "]),
    st.sampled_from([{}, {0: 2}]),
)
def test_pieces_of_one_read_are_written_as_if_they_came_one_by_one(
    reads: list[list[Generated]], max_tokens: int | None, echo: str, again: Mapping[int, int]
) -> None:
    outcomes = []
    for apart in (False, True):
        one = Writer(RunLog(), lambda: 7, 2, max_tokens, echo)
        one.begin(again)
        failed = False
        try:
            for read in reads:
                one.write(taken_apart(read) if apart else read, 1)
        except EngineError:
            failed = True
        channels = [
            (log.channel, log.text, log.seqs, log.ends, log.tokens, log.at_ms, log.token_ids, log.logprobs)
            for log in one.log.channels
        ]
        outcomes.append((channels, failed, one.log.head, one.log.size, one.ends, one.overrun, one.usage()))
    assert outcomes[0] == outcomes[1]


def test_pieces_of_several_reads_are_cut_where_the_limit_is() -> None:
    one = writer(max_tokens=3)
    for texts in (["a", "b"], ["c", "d"]):
        one.write([Pieces(channel=TEXT, texts=texts, token_ids=[[1], [2]])], 1)
    assert (text_of(one), one.overrun) == ("abc", True)


def test_one_choice_that_is_cut_leaves_the_others_alone() -> None:
    one = writer(choices=2, max_tokens=1)
    one.write([piece("a", 1), piece("b", 2), piece("c", 3, channel=Channel(1))], 1)
    assert (one.overrun, one.done, text_of(one), text_of(one, Channel(1))) == (True, False, "a", "c")
    one.write([done(1)], 1)
    assert one.done
    with pytest.raises(EngineError, match="protocol"):
        one.write([piece("after its own end", 4, channel=Channel(1))], 1)


WRONG: dict[str, list[Generated]] = {
    "text after the end of its choice": [piece("a"), done(), piece("b")],
    "a token after the end of its choice": [done(), piece("", 1)],
    "a tool call after the end of its choice": [done(), CallHead(channel=CALL, id="", name="n")],
    "text of a choice that was not asked for": [piece("a", channel=Channel(1))],
    "texts of a choice that was not asked for": [Pieces(channel=Channel(1), texts=["a", "b"], token_ids=[[1], [2]])],
    "a tool call of a choice that was not asked for": [
        CallHead(channel=Channel(3, ChannelKind.TOOL_CALL), id="", name="n")
    ],
    "the end of a choice that was not asked for": [done(1)],
}


@pytest.mark.parametrize("batch", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_the_protocol_is_a_failure(batch: list[Generated]) -> None:
    one = writer()
    with pytest.raises(EngineError) as caught:
        one.write(batch, 1)
    assert caught.value.reason == "UPSTREAM_PROTOCOL"
    assert not one.done or done() in batch


def test_what_is_said_first_of_a_choice_s_end_counts() -> None:
    one = writer()
    one.write([done(reason=FinishReason.TOOL_CALLS), done()], 1)
    one.finish(0, FinishReason.CANCELLED)
    assert one.ends[0].finish_reason is FinishReason.TOOL_CALLS


def test_usage_is_what_was_written_until_the_engine_tells_its_own_counts() -> None:
    one = writer(choices=2)
    assert one.usage() == Usage()
    one.write([PromptRead(prompt_tokens=10, cached_tokens=4), piece("a", 1, 2), piece("", 3)], 1)
    one.write([piece("b", count=5, channel=Channel(1))], 1)
    assert one.usage() == Usage(prompt_tokens=10, cached_tokens=4, output_tokens=8)
    one.write([Totals(output_tokens=9, reasoning_tokens=2)], 1)
    assert one.usage() == Usage(prompt_tokens=10, cached_tokens=4, output_tokens=9, reasoning_tokens=2)
    one.write([Totals(prompt_tokens=11, cached_tokens=0, output_tokens=0)], 1)
    assert one.usage() == Usage(prompt_tokens=11)


@pytest.mark.asyncio
async def test_one_read_of_the_engine_wakes_the_readers_once() -> None:
    one = writer()
    woken: list[int] = []
    one.log.listen(lambda: woken.append(one.log.head))
    one.write([piece("a"), piece("b"), piece("c")], 1)
    assert woken == [3]


def test_the_prompt_comes_once_before_the_text_of_each_choice_and_is_no_token_of_it() -> None:
    one = Writer(RunLog(), lambda: 7, 2, 3, "Say: ")
    other = Channel(1)
    one.write([piece("r", 9, channel=REASONING), piece("", 1), piece("a", 2), piece("b", 3, channel=other)], 1)
    one.write([done(0, FinishReason.LENGTH), piece("c", 4, channel=other), done(1, FinishReason.LENGTH)], 1)
    assert [text_of(one), text_of(one, REASONING), text_of(one, other)] == ["Say: a", "r", "Say: bc"]
    log = one.log.channel(TEXT)
    assert log is not None
    assert list(log.tokens) == [2]
    assert one.usage().output_tokens == 5


@pytest.mark.parametrize(
    ("reason", "text"), [(FinishReason.STOP, "Say: "), (FinishReason.ERROR, ""), (FinishReason.CANCELLED, "")]
)
def test_a_choice_without_text_has_its_prompt_if_the_model_ended_it(reason: FinishReason, text: str) -> None:
    one = Writer(RunLog(), lambda: 7, 1, None, "Say: ")
    one.write([done(0, reason)], 1)
    assert (text_of(one), one.wrote_text) == (text, bool(text))


def logprob(number: int, top: int) -> TokenLogprob:
    near = tuple(TokenLogprob(token_id=one, token="", logprob=-1.0) for one in range(top))
    return TokenLogprob(token_id=number, token="", logprob=None if number == 0 else -1.0, top=near)


def test_the_prompts_log_probabilities_fill_as_many_events_as_they_need() -> None:
    one = writer()
    told = tuple(logprob(number, EVENT_LOGPROBS // 4) for number in range(10))
    one.write([PromptLogprobs(logprobs=told)], 1)
    events = [marked.marker for marked in one.log.markers]
    assert all(isinstance(event, PromptTokens) for event in events)
    parts = [event for event in events if isinstance(event, PromptTokens)]
    assert [part.token_offset for part in parts] == [0, 3, 6, 9]
    assert tuple(each for part in parts for each in part.logprobs) == told
    assert one.log.size > 10 * EVENT_LOGPROBS // 4 * 100


def test_no_log_probabilities_are_no_event() -> None:
    one = writer()
    one.write([PromptLogprobs(logprobs=())], 1)
    assert one.log.markers == []


def test_how_far_the_prompt_was_read_is_told_until_it_was_read() -> None:
    one = writer()
    reading = PrefillProgress(prompt_tokens=10, cached_tokens=0, done_tokens=5)
    one.write([reading], 1)
    assert one.prefill is reading
    assert one.log.markers == []
    one.write([PromptRead(prompt_tokens=10, cached_tokens=0)], 1)
    assert one.prefill is None


@pytest.mark.parametrize(
    ("window", "max_tokens", "reason"),
    [
        (None, 9, FinishReason.LENGTH),
        (13, 9, FinishReason.LENGTH),
        (12, 9, FinishReason.CONTEXT_LENGTH),
        (12, None, FinishReason.CONTEXT_LENGTH),
        (12, 2, FinishReason.LENGTH),
    ],
)
def test_a_choice_that_ended_because_the_window_was_full_says_so(
    window: int | None, max_tokens: int | None, reason: FinishReason
) -> None:
    one = writer(max_tokens=max_tokens)
    one.window = window
    one.write([PromptRead(prompt_tokens=10, cached_tokens=0), piece("a", 1), piece("", 2)], 1)
    one.write([done(0, FinishReason.LENGTH)], 1)
    assert one.ends[0].finish_reason is reason
