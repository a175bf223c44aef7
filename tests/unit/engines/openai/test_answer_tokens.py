"""Token ids and log probabilities in an answer, answers that come as a whole, and what follows for their ends."""

import json
from typing import Any

import pytest

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, PromptRead, Totals
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.openai.logprobs import without_ids
from unit.engines.openai.replay import Told, replay

TEXT, REASONING = Channel(), Channel(0, ChannelKind.REASONING)
CALL = Channel(0, ChannelKind.TOOL_CALL, 0)
NAMED = {"index": 0, "id": "x", "function": {"name": "f"}}


def _event(*choices: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + json.dumps({"choices": list(choices), **fields}).encode() + b"\n\n"


def _text(text: str, ids: list[int] | None, finish: str | None = None, **fields: Any) -> bytes:
    return _event({"text": text, "token_ids": ids, "finish_reason": finish, **fields})


def _delta(ids: list[int] | None, finish: str | None = None, **delta: Any) -> bytes:
    return _event({"delta": delta, "token_ids": ids, "finish_reason": finish})


def _told(*events: bytes, choices: int = 1, **options: Any) -> Told:
    return replay([*events, b"data: [DONE]\n\n"], choices, **options)


def test_ids_ride_with_their_text_and_are_counted() -> None:
    told = _told(_text("ab", [1, 2]), _text("c", [3], "stop"))
    assert (told.ids, told.counts) == ({TEXT: [1, 2, 3]}, {TEXT: 3})


def test_ids_may_run_ahead_of_their_text() -> None:
    told = _told(_text("", [1]), _text("", [2]), _text("a", []), _text("", [3], "stop"))
    assert (told.texts, told.ids, told.counts) == ({TEXT: "a"}, {TEXT: [1, 2, 3]}, {TEXT: 3})


def test_without_ids_nothing_is_counted() -> None:
    told = _told(_text("a", None), _text("", [], "stop"))
    assert (told.ids, told.counts) == ({}, {})


def test_tokens_without_text_belong_to_the_channel_that_was_written_last() -> None:
    told = _told(
        _delta([1], reasoning="hm"),
        _delta([2]),
        _delta([3], content="a"),
        _delta([4], tool_calls=[NAMED]),
        _delta([5], tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        _delta([6], "stop"),
    )
    assert told.ids == {REASONING: [1, 2], TEXT: [3], CALL: [4, 5, 6]}


def test_of_several_channels_in_one_chunk_only_the_count_is_known() -> None:
    told = _told(_delta([1, 2, 3], "stop", reasoning="hm", content="a"))
    assert (told.ids, told.counts) == ({}, {TEXT: 3})


@pytest.mark.parametrize("place", ["choice", "chunk"])
def test_the_prompt_is_told_once_and_as_soon_as_it_is_known(place: str) -> None:
    ids = {"prompt_token_ids": [7, 8]}
    first = [_event({"index": n, "text": "", **(ids if place == "choice" else {})}, **ids) for n in (0, 1)]
    batch: list[Generated] = []
    Answer(2).read([first[0][6:-2]], batch)
    assert batch == [PromptRead(prompt_tokens=2, cached_tokens=0, token_ids=[7, 8])]
    told = _told(*first, _event({"finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}), choices=2)
    assert told.prompt == batch[0]
    assert told.failure is None


def test_a_choice_that_called_a_tool_ended_for_that() -> None:
    told = _told(_delta(None, tool_calls=[NAMED]), _delta(None, "stop"))
    assert told.ends == [ChoiceDone(choice=0, finish_reason=FinishReason.TOOL_CALLS)]
    told = _told(_delta(None, tool_calls=[NAMED]), _delta(None, "length"))
    assert told.ends == [ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH)]


def test_a_stop_string_that_is_none_of_the_requests_is_the_servers_own() -> None:
    ended = _text("a", [6], "stop", stop_reason="###")
    for stop, reason, matched in (
        (None, FinishReason.STOP_SEQUENCE, "###"),
        (("###",), FinishReason.STOP_SEQUENCE, "###"),
        (("#",), FinishReason.STOP, None),
    ):
        assert _told(ended, stop=stop).ends == [ChoiceDone(choice=0, finish_reason=reason, matched_stop=matched)]


@pytest.mark.parametrize(
    ("finish", "stop_reason", "reason", "matched"),
    [
        ("stop", 5, FinishReason.STOP_SEQUENCE, 5),
        # Named by nobody, as it is the model's own end too.
        ("stop", None, FinishReason.STOP_SEQUENCE, 6),
        ("stop", 9, FinishReason.STOP, None),
        ("stop", "5", FinishReason.STOP_SEQUENCE, "5"),
        ("length", 5, FinishReason.LENGTH, None),
    ],
)
def test_a_stop_token_is_told_if_it_is_the_requests_own(
    finish: str, stop_reason: int | str | None, reason: FinishReason, matched: int | str | None
) -> None:
    told = _told(_text("a", [6], finish, stop_reason=stop_reason), stop_token_ids=frozenset({5, 6}))
    assert told.ends == [ChoiceDone(choice=0, finish_reason=reason, matched_stop=matched)]


@pytest.mark.parametrize(
    ("max_tokens", "window", "reason"),
    [
        (None, 4, FinishReason.CONTEXT_LENGTH),
        (3, 4, FinishReason.CONTEXT_LENGTH),
        (2, 4, FinishReason.LENGTH),
        (None, 5, FinishReason.LENGTH),
        (None, None, FinishReason.LENGTH),
    ],
)
def test_a_full_window_is_told_apart_from_the_limit(
    max_tokens: int | None, window: int | None, reason: FinishReason
) -> None:
    events = [_text("a", [1], prompt_token_ids=[8, 9]), _text("b", [2], "length")]
    assert _told(*events, max_tokens=max_tokens, context_window=window).ends[0].finish_reason is reason


def test_log_probabilities_ride_with_the_last_text_of_their_chunk() -> None:
    told = _told(
        _event({"delta": {"content": ""}, "logprobs": None}),
        _event({"delta": {}, "logprobs": {"content": [{"token": "x", "logprob": -1.0}]}}),
        _event({"text": "a", "finish_reason": "stop", "logprobs": {"tokens": ["y"], "token_logprobs": [-2.0]}}),
        logprobs=lambda places, _: without_ids(places, 0),
    )
    assert [one.token for one in told.logprobs[TEXT]] == ["x", "y"]
    assert told.texts == {TEXT: "a"}


def test_log_probabilities_of_another_shape_are_a_failure_only_if_they_were_asked_for() -> None:
    event = _event({"text": "a", "finish_reason": "stop", "logprobs": [1]})
    assert _told(event).failure is None
    assert _told(event, logprobs=lambda places, _: ()).failure == "UPSTREAM_PROTOCOL"


def _whole(choices: int, value: object) -> Told:
    told, batch = Told(), list[Generated]()
    try:
        Answer(choices).read_whole(json.dumps(value).encode(), batch)
    except EngineError as error:
        told.failure = error.reason
    told.add(batch)
    return told


def test_a_whole_answer_tells_what_a_stream_would() -> None:
    calls = [{"id": n, "function": {"name": f"f{n}", "arguments": "{}"}} for n in "xy"]
    told = _whole(
        1,
        {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "a", "reasoning": "hm", "tool_calls": calls},
                    "finish_reason": "stop",
                    "token_ids": [1, 2, 3],
                }
            ],
            "prompt_token_ids": [9],
            "usage": {"prompt_tokens": 1, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}},
        },
    )
    second = Channel(0, ChannelKind.TOOL_CALL, 1)
    assert told.texts == {REASONING: "hm", TEXT: "a", CALL: "{}", second: "{}"}
    assert told.heads == [CallHead(channel=CALL, id="x", name="fx"), CallHead(channel=second, id="y", name="fy")]
    assert told.ends == [ChoiceDone(choice=0, finish_reason=FinishReason.TOOL_CALLS)]
    assert told.prompt == PromptRead(prompt_tokens=1, cached_tokens=1, token_ids=[9])
    assert told.totals == Totals(prompt_tokens=1, cached_tokens=1, output_tokens=3)


def test_a_whole_answer_may_have_more_choices_than_asked_for_but_not_fewer() -> None:
    choices = [{"index": n, "text": str(n), "finish_reason": "length"} for n in range(3)]
    told = _whole(2, {"choices": choices})
    assert (told.texts, told.failure) == ({Channel(0): "0", Channel(1): "1"}, None)
    assert _whole(4, {"choices": choices}).failure == "ENGINE_LOST"


@pytest.mark.parametrize("ids", [[-1], [2**32], ["1"], 7, [None]])
def test_what_are_no_token_ids_is_not_the_protocol(ids: object) -> None:
    assert _told(_event({"text": "a", "token_ids": ids, "finish_reason": "stop"})).failure == "UPSTREAM_PROTOCOL"
    assert _told(_event({"text": "a", "finish_reason": "stop"}, prompt_token_ids=ids)).failure == "UPSTREAM_PROTOCOL"
