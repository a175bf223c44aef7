"""Any run's events, made by hypothesis, and what a log holds of them."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import Code
from tokenwire.domain.events import (
    ChoiceEnd,
    Continuation,
    Dispatched,
    End,
    FinishReason,
    Marker,
    PromptTokens,
    RunError,
    Start,
    Timings,
    TokenLogprob,
    ToolCallHead,
    TrailingTokens,
    Usage,
    UsageUpdate,
)
from tokenwire.journal.log import RunLog

CHANNELS = (Channel(), Channel(1), Channel(0, ChannelKind.REASONING), Channel(1, ChannelKind.TOOL_CALL, 2))
START = Start(run_id="r", request_id="q", model="m", labels={"a": "ä"}, retention_seconds=300)


@dataclass(frozen=True, slots=True)
class Text:
    """Text of one channel; without `ids`, the engine does not tell them."""

    channel: Channel
    text: str
    count: int
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


Written = Marker | Text | ChoiceEnd

_small = st.integers(0, 2**32 - 1)
_words = st.text(st.characters(codec="utf-8"), max_size=5)
_flat_logprobs = st.builds(
    TokenLogprob,
    token_id=st.none() | _small,
    token=_words,
    logprob=st.none() | st.floats(-100, 0),
)
_logprobs = st.lists(
    st.builds(
        TokenLogprob,
        token_id=st.none() | _small,
        token=_words,
        logprob=st.none() | st.floats(-100, 0),
        top=st.lists(_flat_logprobs, max_size=2).map(tuple),
        given=st.lists(_flat_logprobs, max_size=1).map(tuple),
    ),
    max_size=2,
).map(tuple)
_usages = st.builds(Usage, prompt_tokens=_small, cached_tokens=_small, output_tokens=_small, reasoning_tokens=_small)
_channels = st.sampled_from(CHANNELS)


@st.composite
def _texts(draw: st.DrawFn) -> Text:
    text = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6))
    count = draw(st.integers(0, 3))
    told = draw(st.booleans())
    ids = tuple(draw(st.lists(_small, min_size=count, max_size=count))) if told else ()
    return Text(draw(_channels), text, count, ids, draw(st.just(()) | _logprobs))


_trailing = st.builds(
    TrailingTokens, channel=_channels, token_ids=st.lists(_small, max_size=2).map(tuple), logprobs=_logprobs
)
_choice_ends = st.builds(
    ChoiceEnd,
    choice=st.integers(0, 3),
    finish_reason=st.sampled_from(FinishReason),
    matched_stop=st.none() | _words | _small,
    trailing=st.lists(_trailing, max_size=1).map(tuple),
)
_markers = st.one_of(
    st.builds(Dispatched, engine=_words, attempt=st.integers(1, 9), continuation=st.sampled_from(Continuation)),
    st.builds(ToolCallHead, channel=_channels, id=_words, name=_words),
    st.builds(UsageUpdate, attempt=st.integers(1, 9), usage=_usages),
    st.builds(PromptTokens, token_offset=_small, logprobs=_logprobs),
)
_errors = st.builds(
    RunError,
    code=st.sampled_from(Code),
    reason=_words,
    message=_words,
    retryable=st.booleans(),
    retry_after=st.none() | st.floats(0, 10),
    metadata=st.dictionaries(_words, _words, max_size=1),
)
_ends = st.builds(
    End,
    choices=st.lists(_choice_ends, max_size=2).map(tuple),
    usage=_usages,
    timings=st.builds(Timings, queued_ms=_small, tokens_per_second=st.floats(0, 1000)),
    channels=st.just(()),
    error=st.none() | _errors,
)


@st.composite
def run_events(draw: st.DrawFn, max_size: int = 12) -> list[Written]:
    """What a writer writes of one run: its start, anything, and perhaps its end."""
    middle: list[Written] = draw(st.lists(st.one_of(_texts(), _texts(), _markers, _choice_ends), max_size=max_size))
    return [START, *middle, *([draw(_ends)] if draw(st.booleans()) else [])]


def write(log: RunLog, events: list[Written], at_ms: int = 0) -> None:
    """Appends events, and wakes nobody."""
    for place, event in enumerate(events):
        if isinstance(event, Text):
            log.append_text(event.channel, event.text, at_ms + place, event.ids, event.count, event.logprobs)
        elif isinstance(event, ChoiceEnd):
            if event.choice not in log.choice_ends:
                log.note_end(event)
        else:
            log.add(event, at_ms + place)


def contents(log: RunLog, upto: int | None = None) -> dict[str, Any]:
    """Everything that a log holds of its events up to a number, to compare."""
    last = log.head if upto is None else upto
    channels = {}
    for channel in log.channels:
        events, end = channel.consumed_at(last)
        if events:
            channels[channel.channel] = (
                bytes(channel.text[:end]),
                *(list(column[:events]) for column in (channel.seqs, channel.ends, channel.tokens, channel.at_ms)),
                list(channel.token_ids[: channel.tokens[events - 1]]),
                {place: told for place, told in channel.logprobs.items() if place < events},
            )
    return {
        "head": min(last, log.head),
        "dropped": log.dropped,
        "markers": [one for one in log.markers if one.seq <= last],
        "channels": channels,
    }
