"""What is kept of a run beside its events is read back as it was, whatever the request."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records import record
from tokenwire.domain.cursor import Channel, Cursor
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import (
    Constraint,
    FailoverPolicy,
    KvOptions,
    Limits,
    Logprobs,
    Message,
    Output,
    ReasoningEffort,
    Role,
    RunOptions,
    Sampling,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
)
from tokenwire.journal.record import DamagedError, RunRecord, decode_record, encode_record

_words = st.text(st.characters(codec="utf-8"), max_size=8)
_numbers = st.integers(0, 2**32 - 1)
_floats = st.floats(allow_nan=False)
_ids = st.lists(_numbers, max_size=3).map(tuple)
_choices = st.none() | st.booleans()
_submissions = st.builds(
    Submission,
    model=_words,
    prompt=st.none() | _words,
    prompt_ids=_ids,
    messages=st.lists(
        st.builds(
            Message,
            role=st.sampled_from(Role),
            content=_words,
            tool_calls=st.lists(st.builds(ToolCall, id=_words, name=_words, arguments=_words), max_size=1).map(tuple),
            name=_words,
        ),
        max_size=2,
    ).map(tuple),
    tools=st.lists(st.builds(Tool, name=_words, parameters_schema=_words, strict=_choices), max_size=1).map(tuple),
    tool_choice=st.none() | st.sampled_from(ToolMode) | _words,
    reasoning=st.none() | st.sampled_from(ReasoningEffort),
    sampling=st.builds(
        Sampling,
        temperature=st.none() | _floats,
        seed=st.none() | st.integers(-(2**63), 2**64 - 1),
        logit_bias=st.lists(st.tuples(_numbers, _floats), max_size=2).map(tuple),
        n=st.none() | st.integers(1, 8),
    ),
    stopping=st.builds(Stopping, max_tokens=st.none() | _numbers, stop=st.lists(_words, max_size=2).map(tuple)),
    constraint=st.none() | st.builds(Constraint, regex=st.none() | _words, json_object=_choices),
    output=st.builds(Output, logprobs=st.none() | st.builds(Logprobs, top_n=st.none() | _numbers, token_ids=_ids)),
    limits=st.builds(Limits, max_duration=st.none() | _floats),
    run=st.builds(
        RunOptions,
        request_id=_words,
        orphan_grace=st.none() | _floats,
        labels=st.dictionaries(_words, _words, max_size=2),
        failover=st.none() | st.sampled_from(FailoverPolicy),
    ),
    kv=st.builds(KvOptions, cache_salt=st.none() | _words),
    after=st.none() | st.builds(Cursor, seq=_numbers, ahead=st.just(((Channel(1), 5),)), epoch=st.none() | _numbers),
    fingerprint=st.binary(max_size=32),
)
_records = st.builds(
    RunRecord,
    run_id=_words,
    tenant=_words,
    model=_words,
    submission=_submissions,
    prompt=st.builds(Prompt, text=st.none() | _words, token_ids=_ids, tokens=st.none() | _numbers),
    share=st.integers(0, 2**40),
    grace=st.none() | _floats,
    created_at=_floats,
    max_duration=_floats,
    retention=_floats,
    traceparent=_words,
)


@given(_records)
def test_any_request_is_read_back_as_it_was(one: RunRecord) -> None:
    assert decode_record(encode_record(one)) == one


def test_a_record_of_a_version_without_traces_is_read_and_theirs_by_it() -> None:
    kept = replace(record(), traceparent="00-1-2-01")
    fields = msgspec.msgpack.decode(encode_record(kept))
    del fields["traceparent"]
    assert decode_record(msgspec.msgpack.encode(fields)) == replace(kept, traceparent="")
    # The other way round: a version that does not know a field passes over it.
    later = msgspec.msgpack.encode(fields | {"traceparent": kept.traceparent, "of_a_later_version": 1})
    assert decode_record(later) == kept


@given(_records, st.data())
def test_a_record_that_was_cut_is_refused(one: RunRecord, data: st.DataObject) -> None:
    encoded = encode_record(one)
    with pytest.raises(DamagedError):
        decode_record(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary(max_size=100))
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_record(data)


def test_a_mode_of_calling_tools_and_a_tool_of_that_number_are_told_apart() -> None:
    for choice in (ToolMode.NONE, "2"):
        kept = decode_record(encode_record(record(submission=Submission(tool_choice=choice))))
        assert kept.submission.tool_choice == choice
        assert type(kept.submission.tool_choice) is type(choice)
