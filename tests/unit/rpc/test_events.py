"""Every event reaches the wire with all that it says."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tokenwire.domain import events
from tokenwire.domain.cursor import START, Channel, ChannelKind, Cursor
from tokenwire.domain.errors import Code
from tokenwire.domain.events import Delta, Envelope
from tokenwire.rpc.events import encode, to_event, to_run_error
from tokenwire.v1 import event_pb2, finish_pb2
from tokenwire.v1.cursor_pb2 import CHANNEL_KIND_TOOL_CALL, ChannelOffset

CALL = Channel(1, ChannelKind.TOOL_CALL, 2)
LOGPROB = events.TokenLogprob(token_id=4, token="t", logprob=-0.5)
TOP = events.TokenLogprob(token_id=3, token="s", logprob=-0.25, top=(LOGPROB,), given=(LOGPROB,))
USAGE = events.Usage(prompt_tokens=1, cached_tokens=2, output_tokens=3, reasoning_tokens=4)
TIMINGS = events.Timings(
    queued_ms=1,
    scheduled_ms=2,
    first_token_ms=3,
    completed_ms=4,
    time_to_first_token_ms=5,
    mean_time_between_tokens_ms=6.5,
    p99_time_between_tokens_ms=7.5,
    tokens_per_second=8.5,
)
ERROR = events.RunError(
    code=Code.DATA_LOSS, reason="R", message="m", retryable=True, retry_after=1.5, metadata={"a": "b"}
)


def delta(channel: Channel) -> events.Delta:
    return events.Delta(
        channel=channel, text="é", byte_offset=5, token_offset=6, token_count=2, token_ids=(7, 8), logprobs=(TOP,)
    )


def ended(stop: str | int) -> events.End:
    choice = events.ChoiceEnd(
        choice=1,
        finish_reason=events.FinishReason.STOP_SEQUENCE,
        matched_stop=stop,
        trailing=(events.TrailingTokens(channel=CALL, token_ids=(9,), logprobs=(TOP,)),),
    )
    channel = events.ChannelEnd(channel=CALL, bytes=10, tokens=11, sha256="ab")
    return events.End(
        choices=(choice,), usage=USAGE, timings=TIMINGS, channels=(channel,), error=ERROR, texts=("whole",)
    )


SAMPLES: list[events.Event] = [
    events.Start(run_id="r", request_id="q", model="m", labels={"k": "v"}, retention_seconds=300),
    events.Dispatched(engine="e", attempt=2, continuation=events.Continuation.BY_TEXT),
    delta(Channel(1)),
    delta(Channel(1, ChannelKind.REASONING)),
    delta(CALL),
    events.ToolCallHead(channel=CALL, id="i", name="n"),
    events.UsageUpdate(attempt=2, usage=USAGE),
    events.PromptTokens(token_offset=3, logprobs=(TOP,)),
    ended("stop"),
    ended(12),
    events.Progress(
        phase=events.Phase.PREFILL,
        queue_place=1,
        prefill_total=2,
        prefill_cached=3,
        prefill_done=4,
        tokens=5,
        characters=6,
        estimated_tokens=7,
        percent=8.5,
        eta_ms=9,
        tokens_per_second=10.5,
    ),
    events.Heartbeat(),
    events.Detached(reason=events.DetachReason.SLOW_CONSUMER, resume_within_ms=1, retry_after_ms=2),
]
CURSOR = Cursor(41, ((CALL, 7),), 2)


def set_paths(message: Message, prefix: str = "") -> Iterator[str]:
    for field, value in message.ListFields():
        yield f"{prefix}{field.name}"
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for one in value if field.is_repeated else [value]:
                yield from set_paths(one, f"{prefix}{field.name}.")


def all_paths(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        yield f"{prefix}{field.name}"
        inner = field.message_type
        if inner and inner is not descriptor and not inner.GetOptions().map_entry:
            yield from all_paths(inner, f"{prefix}{field.name}.")


def leaves(value: object) -> Iterator[object]:
    if is_dataclass(value):
        for field in fields(value):
            # What names the field at fault goes into the status alone.
            if not (isinstance(value, events.RunError) and field.name in ("violations", "resource")):
                yield from leaves(getattr(value, field.name))
    elif isinstance(value, tuple) and not isinstance(value, Channel):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def test_there_is_a_sample_of_every_event_that_says_something_in_every_field() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(events.Event)) | set(get_args(events.Marker))
    assert all(leaf not in (None, 0, "", ()) for sample in SAMPLES for leaf in leaves(sample))


def test_every_field_of_the_contract_s_events_is_written_by_one_of_them() -> None:
    written = {path for sample in SAMPLES for path in set_paths(to_event(events.Envelope(sample, CURSOR, 5)))}
    assert set(all_paths(event_pb2.Event.DESCRIPTOR)) - written == set()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_an_event_says_all_that_it_knows(sample: events.Event) -> None:
    data = encode(events.Envelope(sample, CURSOR, 5))
    text = str(event_pb2.Event.FromString(data))
    for leaf in leaves(sample):
        if isinstance(leaf, str):
            assert leaf in text or repr(leaf.encode())[2:-1] in text
        elif isinstance(leaf, float):
            assert str(leaf) in text or str(int(leaf * 1000)) in text


@pytest.mark.parametrize(
    ("channel", "field"),
    [(Channel(1), "delta"), (Channel(1, ChannelKind.REASONING), "reasoning_delta"), (CALL, "tool_call_delta")],
)
def test_text_goes_out_in_its_channel_s_event(channel: Channel, field: str) -> None:
    event = event_pb2.Event.FromString(encode(events.Envelope(delta(channel), CURSOR, 5)))
    assert event.WhichOneof("event") == field
    inner: Any = getattr(event, field)
    assert (inner.choice, inner.byte_offset, inner.token_offset, inner.token_count) == (1, 5, 6, 2)
    assert list(inner.token_ids) == [7, 8]
    assert (inner.arguments if field == "tool_call_delta" else inner.text) == "é"


def test_the_default_choice_and_channel_print_nothing() -> None:
    sample = events.Delta(channel=Channel(), text="a", byte_offset=0, token_offset=0, token_count=0)
    event = to_event(events.Envelope(sample, START, 0))
    assert list(set_paths(event)) == ["delta", "delta.text", "cursor"]


def test_a_cursor_names_the_channels_that_are_ahead() -> None:
    event = to_event(events.Envelope(events.Heartbeat(), CURSOR, 0))
    offset = ChannelOffset(choice=1, kind=CHANNEL_KIND_TOOL_CALL, index=2, byte_offset=7)
    assert (event.cursor.seq, list(event.cursor.ahead)) == (41, [offset])


def test_an_end_without_an_error_has_none() -> None:
    end = events.End(choices=(), usage=USAGE, timings=TIMINGS, channels=())
    assert not to_event(events.Envelope(end, START, 0)).end.HasField("error")


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_an_error_in_an_event_has_grpc_s_number(code: Code) -> None:
    error = to_run_error(events.RunError(code=code, reason="R", message="m"))
    assert finish_pb2.StatusCode.Name(error.code) == f"STATUS_CODE_{code.name}"


@pytest.mark.parametrize(
    "channel", [Channel(), Channel(2), Channel(0, ChannelKind.REASONING), Channel(0, ChannelKind.TOOL_CALL, 1)]
)
@pytest.mark.parametrize("cursor", [Cursor(3), Cursor(3, ((Channel(), 2),)), Cursor(3, (), 7), Cursor(3, (), 0)])
@pytest.mark.parametrize("token_ids", [(), (5, 6)])
def test_text_alone_is_encoded_as_every_other_event(
    channel: Channel, cursor: Cursor, token_ids: tuple[int, ...]
) -> None:
    delta = Delta(channel, "für", 4, 2, 2, token_ids)
    envelope = Envelope(delta, cursor, 12)
    assert encode(envelope) == to_event(envelope).SerializeToString()
