"""Streams as engines may send them, without a capture of one that did."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import CallHead, ChoiceDone, Totals
from unit.engines.openai.replay import Told, replay

TEXT, REASONING = Channel(), Channel(0, ChannelKind.REASONING)
STOP = ChoiceDone(choice=0, finish_reason=FinishReason.STOP)
DONE = b"data: [DONE]\n\n"


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    return _event({"choices": list(choices), **fields})


def _text(text: str | None, finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    return _chunk({"index": index, "text": text, "finish_reason": finish, **fields})


def _delta(finish: str | None = None, **delta: Any) -> bytes:
    return _chunk({"index": 0, "delta": delta, "finish_reason": finish})


def _told(*events: bytes, choices: int = 1) -> Told:
    apart, together = replay(events, choices), replay([b"".join(events)], choices)
    assert apart == together
    return apart


@pytest.mark.parametrize(
    "events",
    [
        [_text("a"), _text("b", "stop")],
        [_text("a"), _text("b"), _text("", "stop")],
        [_text("a"), _text("b"), _text(None, "stop")],
        # The Rust front end: no null fields, and an extra last chunk, after one that has finished or not.
        [_text("a"), _text("b", "stop"), _text("", "stop")],
        [_chunk({"index": 0, "text": "a"}), _chunk({"index": 0, "text": "b"}), _text("", "stop")],
        [_text("a"), _text("b", ""), _text("", "stop")],
        [_delta(role="assistant"), _delta(content="a"), _delta(content="b"), _delta("stop")],
        [_delta(role="assistant", content=None), _delta(content="ab"), _delta("stop", content=None)],
        [_delta(role="assistant", content=""), _delta(content="ab"), _chunk({"finish_reason": "stop"})],
    ],
)
def test_a_finish_may_come_with_the_last_text_or_after_it_or_twice(events: list[bytes]) -> None:
    assert _told(*events, DONE) == Told(texts={TEXT: "ab"}, ends=[STOP])


@pytest.mark.parametrize(
    ("finish", "fields", "expected"),
    [
        ("stop", {}, STOP),
        ("stop", {"stop_reason": None, "matched_stop": None}, STOP),
        ("stop", {"stop_reason": 2}, STOP),
        ("stop", {"matched_stop": 2}, STOP),
        ("stop", {"matched_stop": [2, 7]}, STOP),
        (
            "stop",
            {"stop_reason": "\n"},
            ChoiceDone(choice=0, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop="\n"),
        ),
        (
            "stop",
            {"matched_stop": "9"},
            ChoiceDone(choice=0, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop="9"),
        ),
        ("length", {}, ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH)),
        ("content_filter", {}, ChoiceDone(choice=0, finish_reason=FinishReason.CONTENT_FILTER)),
        ("tool_calls", {}, ChoiceDone(choice=0, finish_reason=FinishReason.TOOL_CALLS)),
    ],
)
def test_a_finish_reason_has_its_meaning(finish: str, fields: dict[str, Any], expected: ChoiceDone) -> None:
    assert _told(_text("a", finish, **fields), DONE) == Told(texts={TEXT: "a"}, ends=[expected])


@pytest.mark.parametrize("finish", ["abort", "error", "load", "STOP", "?"])
def test_an_unknown_finish_reason_is_a_failure_after_the_text_that_came_with_it(finish: str) -> None:
    assert _told(_text("a", finish), DONE) == Told(texts={TEXT: "a"}, failure="ENGINE_ABORTED")


@pytest.mark.parametrize("both", [{}, {"reasoning": "hm"}])
def test_reasoning_has_two_names(both: dict[str, str]) -> None:
    told = _told(_delta(reasoning_content="hm", **both), _delta(reasoning=", so"), _delta("stop", content="a"), DONE)
    assert told == Told(texts={REASONING: "hm, so", TEXT: "a"}, ends=[STOP])


def test_tool_calls_side_by_side_are_channels_of_their_own() -> None:
    told = _told(
        _delta(tool_calls=[{"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        _delta(tool_calls=[{"index": 1, "id": "y", "function": {"name": "g", "arguments": "{"}}]),
        _delta(
            tool_calls=[{"index": 0, "function": {"arguments": "[]"}}, {"index": 1, "function": {"arguments": "}"}}]
        ),
        # Some repeat id and name with every part.
        _delta("tool_calls", tool_calls=[{"index": 1, "id": "y", "function": {"name": "g", "arguments": " "}}]),
        DONE,
    )
    first, second = Channel(0, ChannelKind.TOOL_CALL, 0), Channel(0, ChannelKind.TOOL_CALL, 1)
    assert told.heads == [CallHead(channel=first, id="x", name="f"), CallHead(channel=second, id="y", name="g")]
    assert told.texts == {first: "[]", second: "{} "}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Totals()),
        ({"prompt_tokens": 3, "completion_tokens": 2}, Totals(prompt_tokens=3, output_tokens=2)),
        ({"prompt_tokens_details": {"cached_tokens": 1}}, Totals(cached_tokens=1)),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, Totals()),
        ({"completion_tokens_details": {"reasoning_tokens": 4}}, Totals(reasoning_tokens=4)),
        ({"reasoning_tokens": 5, "completion_tokens_details": None}, Totals(reasoning_tokens=5)),
    ],
)
def test_usage_is_told_once_at_the_end(usage: dict[str, Any], expected: Totals) -> None:
    for events in (
        [_text("a", "stop"), _chunk(usage=usage)],
        [_text("a", usage={"prompt_tokens": 9}), _text("b", "stop"), _chunk(usage=usage)],
        [_text("a", usage=None), _chunk({"text": "", "finish_reason": "stop"}, usage=usage)],
        [_text("a", "stop"), _event({"usage": usage})],
    ):
        assert _told(*events, DONE).totals == expected


@pytest.mark.parametrize("end", ["message", {"message": "x", "code": 500}, {}, [], 7, True])
def test_an_error_ends_the_stream_wherever_it_comes(end: object) -> None:
    error = _event({"error": end})
    assert _told(error, DONE).failure == "ENGINE_FAILED"
    assert _told(_text("a"), error, DONE) == Told(texts={TEXT: "a"}, failure="ENGINE_FAILED")
    assert _told(_text("a", "stop"), error, DONE).failure == "ENGINE_FAILED"
    assert _told(_text("a", "stop"), _event({"choices": [], "error": end}), DONE).failure == "ENGINE_FAILED"


def test_an_error_with_its_fields_at_the_top_is_an_error() -> None:
    flat = {"object": "error", "message": "The request queue is full.", "type": "503", "code": 503}
    assert _told(_event(flat), DONE).failure == "ENGINE_OVERLOADED"


def test_an_error_that_is_null_is_none() -> None:
    assert _told(_text("a", "stop"), _chunk(error=None), DONE).failure is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'"[DONE]"',
        b"<html>",
        b'{"choices":null}',
        b'{"choices":{}}',
        b'{"choices":[null]}',
        b'{"choices":[{"text":1}]}',
        b'{"choices":[{"text":"\xff"}]}',
        b'{"choices":[{"text":"\\ud83d"}]}',
        b'{"choices":[{"text":"a","index":-1}]}',
        b'{"choices":[{"text":"a","index":1}]}',
        b'{"choices":[{"text":"a","index":"0"}]}',
        b'{"choices":[{"delta":"a"}]}',
        b'{"choices":[{"delta":{"content":["a"]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}',
        b'{"choices":[{"finish_reason":1}]}',
        b'{"choices":[],"usage":{"prompt_tokens":-1}}',
        b'{"choices":[],"usage":{"prompt_tokens":"1"}}',
        b'{"choices":[],"deep":' + b"[" * 100_000,
        b'{"other":"\xff"}',
    ],
)
def test_what_is_not_the_protocol_is_a_failure(payload: bytes) -> None:
    told = replay([_text("a") + b"data: " + payload + b"\n\n" + _text("b", "stop") + DONE])
    assert told == Told(texts={TEXT: "a"}, failure="UPSTREAM_PROTOCOL")


def test_text_after_a_choice_has_finished_is_a_failure() -> None:
    assert _told(_text("a", "stop"), _text("b"), DONE) == Told(
        texts={TEXT: "a"}, ends=[STOP], failure="UPSTREAM_PROTOCOL"
    )


@settings(deadline=None)
@given(order=st.permutations([0, 0, 1, 1, 2, 2]))
def test_choices_may_come_in_any_order(order: list[int]) -> None:
    seen: set[int] = set()
    events = []
    for index in order:
        events.append(_text("b" if index in seen else "a", "stop" if index in seen else None, index))
        seen.add(index)
    told = _told(*events, DONE, choices=3)
    assert told.texts == {Channel(choice): "ab" for choice in range(3)}
    assert sorted(end.choice for end in told.ends) == [0, 1, 2]
    assert told.failure is None


def test_unknown_fields_and_comments_are_ignored() -> None:
    told = _told(b": ping\n\n", _text("a", "stop", logprobs={"x": [1]}, new={"y": None}), DONE)
    assert told == Told(texts={TEXT: "a"}, ends=[STOP])
