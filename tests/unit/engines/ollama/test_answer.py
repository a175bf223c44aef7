"""Streams of Ollama as domain values."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Piece, Totals
from tokenwire.domain.request import Constraint, Logprobs, Output, Stopping, Submission
from tokenwire.engines.framing import LineSplitter
from tokenwire.engines.ollama.answer import Answer
from unit.engines.ollama.running import HI, Told, job

TEXT = Channel(0)
REASONING = Channel(0, ChannelKind.REASONING)
ASKED = Submission(messages=HI)
CONSTRAINED = replace(ASKED, constraint=Constraint(json_object=True))


def call(index: int) -> Channel:
    return Channel(0, ChannelKind.TOOL_CALL, index)


def chat(content: str = "", **message: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content} | message, "done": False}


def last(reason: str | None = "stop", content: str = "", **counts: int) -> dict[str, Any]:
    return chat(content) | {"done": True, "done_reason": reason} | counts


def stream(*lines: Any) -> bytes:
    return b"".join(json.dumps({"model": "tiny"} | line, ensure_ascii=False).encode() + b"\n" for line in lines)


def read(
    reads: Iterable[bytes], submission: Submission = ASKED, window: int | None = None
) -> tuple[list[Generated], bool, str | None]:
    """Returns what was told, whether the answer is whole, and the reason of its failure."""
    splitter, answer = LineSplitter(), Answer(job(submission), window)
    told: list[Generated] = []
    try:
        for chunk in reads:
            answer.read(splitter.feed(chunk), told)
    except EngineError as error:
        return told, answer.done, error.reason
    return told, answer.done, None


def ended(*lines: Any, submission: Submission = ASKED, window: int | None = None) -> FinishReason:
    told, done, failure = read([stream(*lines)], submission, window)
    assert done
    assert failure is None
    (end,) = [item for item in told if isinstance(item, ChoiceDone)]
    return end.finish_reason


def test_text_and_counts_of_a_chat() -> None:
    told, done, _ = read([stream(chat("Good"), chat(" day"), last(prompt_eval_count=5, eval_count=3))])
    assert done
    assert told == [
        Piece(channel=TEXT, text="Good"),
        Piece(channel=TEXT, text=" day"),
        ChoiceDone(choice=0, finish_reason=FinishReason.STOP),
        Totals(prompt_tokens=5, output_tokens=3),
    ]


def test_text_and_thinking_of_a_completion() -> None:
    lines = ({"thinking": "hm", "response": "", "done": False}, {"response": "a", "done": True, "done_reason": "stop"})
    told, done, _ = read([stream(*lines)])
    assert done
    assert told[:2] == [Piece(channel=REASONING, text="hm"), Piece(channel=TEXT, text="a")]


def test_text_in_the_last_line_is_text() -> None:
    told, done, _ = read([stream(chat("a"), last(content="b"))])
    assert done
    assert [item.text for item in told if isinstance(item, Piece)] == ["a", "b"]


def test_thinking_is_a_channel_of_its_own() -> None:
    told, _, _ = read([stream(chat(thinking="hm"), chat("so", thinking="."), last())])
    assert told[:3] == [
        Piece(channel=REASONING, text="hm"),
        Piece(channel=REASONING, text="."),
        Piece(channel=TEXT, text="so"),
    ]


def test_tool_calls_come_whole_and_end_the_answer() -> None:
    first = {"function": {"name": "f", "arguments": {"b": 1, "a": ["ä", 1.5]}}}
    second = {"id": "theirs", "function": {"index": 0, "name": "g", "arguments": {}}}
    told, done, _ = read([stream(chat(tool_calls=[first]), chat(tool_calls=[second, second]), last())])
    assert done
    assert told == [
        CallHead(channel=call(0), id="call_r_0", name="f"),
        Piece(channel=call(0), text='{"b":1,"a":["ä",1.5]}'),
        CallHead(channel=call(1), id="theirs", name="g"),
        Piece(channel=call(1), text="{}"),
        # An id twice would make two calls one.
        CallHead(channel=call(2), id="call_r_2", name="g"),
        Piece(channel=call(2), text="{}"),
        ChoiceDone(choice=0, finish_reason=FinishReason.TOOL_CALLS),
        Totals(),
    ]


def test_ids_of_calls_differ_between_runs() -> None:
    line = stream(chat(tool_calls=[{"function": {"name": "f", "arguments": {}}}]))
    heads: list[Generated] = []
    for run_id in ("r", "s"):
        Answer(job(ASKED, run_id=run_id), None).read([line], heads)
    assert [item.id for item in heads if isinstance(item, CallHead)] == ["call_r_0", "call_s_0"]


@pytest.mark.parametrize(
    ("max_tokens", "window", "read_tokens", "written", "expected"),
    [
        (5, None, 7, 5, FinishReason.LENGTH),
        (5, 12, 7, 5, FinishReason.LENGTH),
        (50, 12, 7, 5, FinishReason.CONTEXT_LENGTH),
        (50, None, 7, 5, FinishReason.CONTEXT_LENGTH),
        (None, 12, 7, 5, FinishReason.CONTEXT_LENGTH),
        (None, 12, 7, 3, FinishReason.CONTEXT_LENGTH),
        (None, 4096, 7, 5, FinishReason.LENGTH),
        (None, None, 7, 5, FinishReason.LENGTH),
        (50, 12, None, None, FinishReason.LENGTH),
    ],
)
def test_an_answer_that_was_cut_tells_by_what(
    max_tokens: int | None, window: int | None, read_tokens: int | None, written: int | None, expected: FinishReason
) -> None:
    submission = replace(ASKED, stopping=Stopping(max_tokens=max_tokens))
    counts = {"prompt_eval_count": read_tokens, "eval_count": written}
    line = last("length") | {name: count for name, count in counts.items() if count is not None}
    assert ended(line, submission=submission, window=window) is expected


@pytest.mark.parametrize("text", ["", "Sure!", '{"a": 1', '{"a": 1} Done.', "[1]"])
def test_an_answer_that_is_not_held_to_its_constraint_is_a_failure(text: str) -> None:
    told, done, failure = read([stream(chat(text), last())], CONSTRAINED)
    assert (done, failure) == (False, "CONSTRAINT_NOT_KEPT")
    assert not [item for item in told if isinstance(item, ChoiceDone)]


def test_an_answer_that_was_cut_or_needs_no_constraint_may_be_anything() -> None:
    assert ended(chat(thinking="hm"), chat('{"a":'), chat(" 1}"), last(), submission=CONSTRAINED) is FinishReason.STOP
    array = replace(ASKED, constraint=Constraint(json_schema='{"type": "array"}'))
    assert ended(chat("[1]"), last(), submission=array) is FinishReason.STOP
    assert ended(chat('{"a"'), last("length"), submission=CONSTRAINED) is FinishReason.LENGTH
    stopped = replace(CONSTRAINED, stopping=Stopping(stop=(":",)))
    assert ended(chat('{"a"'), last(), submission=stopped) is FinishReason.STOP
    assert ended(chat("Sure!"), last()) is FinishReason.STOP


def test_tools_that_were_called_before_the_limit_do_not_hide_it() -> None:
    line = chat(tool_calls=[{"function": {"name": "f", "arguments": {}}}])
    assert ended(line, last("length", eval_count=5)) is FinishReason.LENGTH


@pytest.mark.parametrize("reason", [None, ""])
def test_the_documentations_examples_end_without_a_reason(reason: str | None) -> None:
    assert ended(chat("a"), last(reason)) is FinishReason.STOP


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"error": "an error was encountered while running the model"}, "ENGINE_FAILED"),
        ({"error": "the input length exceeds the context length"}, "CONTEXT_LENGTH_EXCEEDED"),
        ({"error": {"message": "odd"}}, "ENGINE_FAILED"),
        (last("load"), "ENGINE_LOST"),
        (last("unload"), "ENGINE_LOST"),
        (last("surprise"), "ENGINE_ABORTED"),
        ({"status": "success"}, "UPSTREAM_PROTOCOL"),
        ({"message": {"content": 1}, "done": False}, "UPSTREAM_PROTOCOL"),
        (chat(tool_calls=[{"function": {"name": "", "arguments": {}}}]), "UPSTREAM_PROTOCOL"),
        (chat(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), "UPSTREAM_PROTOCOL"),
    ],
)
def test_what_is_no_answer_fails_after_what_came_before_it(line: Any, expected: str) -> None:
    told, done, failure = read([stream(chat("a"), line)])
    assert not done
    assert failure == expected
    assert told == [Piece(channel=TEXT, text="a"), Totals(output_tokens=1)]


def test_bytes_that_are_no_json_are_not_ollamas() -> None:
    assert read([b"event: x\n"]) == ([], False, "UPSTREAM_PROTOCOL")


def test_an_error_in_the_stream_may_be_tried_again() -> None:
    answer = Answer(job(ASKED), None)
    with pytest.raises(EngineError) as caught:
        answer.read([stream({"error": "secret words"})], [])
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.retryable
    assert "secret" not in caught.value.message


def test_a_stream_without_its_last_line_is_not_whole() -> None:
    told, done, failure = read([stream(chat("a"), chat("b"))])
    assert (done, failure) == (False, None)
    assert told[-1] == Totals(output_tokens=2)


def test_nothing_is_read_after_the_last_line() -> None:
    told, _, _ = read([stream(chat("a"), last(), chat("b"), {"error": "late"})])
    assert told == read([stream(chat("a"), last())])[0]


def test_a_run_that_is_cut_has_cost_a_token_a_line_but_none_where_the_channel_changes() -> None:
    told, _, _ = read([stream(chat(thinking="a"), chat(thinking="b"), chat("c"), chat("d"), chat(""))])
    assert told[-1] == Totals(output_tokens=3)
    assert not [item for item in told if isinstance(item, Piece) and item.token_count is not None]


def test_an_answer_is_not_longer_than_was_asked_for() -> None:
    submission = replace(ASKED, stopping=Stopping(max_tokens=2))
    told, done, _ = read([stream(chat("a"), chat("b"), chat("c"), last(eval_count=3))], submission)
    assert done
    assert told == [
        Piece(channel=TEXT, text="a"),
        Piece(channel=TEXT, text="b"),
        ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH),
        Totals(output_tokens=2),
    ]


def test_the_last_lines_text_is_of_tokens_that_came_before() -> None:
    submission = replace(ASKED, stopping=Stopping(max_tokens=1))
    told, _, _ = read([stream(chat("a"), last("length", content="b", eval_count=1))], submission)
    assert [item.text for item in told if isinstance(item, Piece)] == ["a", "b"]


def test_tokens_that_the_last_count_leaves_out_are_counted() -> None:
    # An answer in a given form after reasoning is a generation of its own, and the count that of the second.
    told, _, _ = read([stream(*(chat(thinking="a") for _ in range(4)), chat("{}"), last(eval_count=2))])
    assert told[-1] == Totals(output_tokens=4)


def logprob(token: str, *top: str) -> dict[str, Any]:
    bare = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return bare | ({"top_logprobs": [{"token": one, "logprob": -0.5} for one in top]} if top else {})


def asked_for(top_n: int) -> Submission:
    return replace(ASKED, output=Output(logprobs=Logprobs(top_n=top_n)))


def known(token: str, *top: str) -> TokenLogprob:
    candidates = tuple(TokenLogprob(token_id=None, token=one, logprob=-0.5) for one in top)
    return TokenLogprob(token_id=None, token=token, logprob=-0.5, top=candidates)


@pytest.mark.parametrize("top_n", [0, 1, 2])
def test_log_probabilities_belong_to_the_text_of_their_line(top_n: int) -> None:
    told, _, _ = read([stream(chat("a") | {"logprobs": [logprob("a", "a", "b")]}, last())], asked_for(top_n))
    (piece,) = [item for item in told if isinstance(item, Piece)]
    assert piece == Piece(channel=TEXT, text="a", token_count=1, logprobs=(known("a", *("a", "b")[:top_n]),))


def test_log_probabilities_without_text_belong_to_their_channels_next() -> None:
    lines = (chat(thinking="hm"), chat() | {"logprobs": [logprob("</think>")]}, last())
    told, _, _ = read([stream(*lines)], asked_for(0))
    assert told[1] == Piece(channel=REASONING, text="", token_count=1, logprobs=(known("</think>"),))


def test_log_probabilities_that_nobody_asked_for_are_left_out() -> None:
    told, _, _ = read([stream(chat("a") | {"logprobs": [logprob("a")]}, last())])
    assert told[0] == Piece(channel=TEXT, text="a")


WHOLE = stream(
    chat(thinking="Hm, ä"),
    chat("Grüße\n"),
    chat("👋"),
    chat(tool_calls=[{"function": {"name": "f", "arguments": {"q": "ß"}}}]),
    last(prompt_eval_count=3, eval_count=9),
)


def summary(reads: Sequence[bytes]) -> tuple[Told, bool]:
    told, done, failure = read(reads)
    assert failure is None
    whole = Told()
    whole.add(told)
    return whole, done


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12))
def test_where_reads_are_cut_does_not_matter(places: list[int]) -> None:
    ends = [0, *sorted(set(places)), len(WHOLE)]
    cut = [WHOLE[start:end] for start, end in pairwise(ends)]
    assert summary(cut) == summary([WHOLE])
    assert summary(cut)[1]


@given(st.integers(0, len(WHOLE) - 1))
def test_no_beginning_of_an_answer_is_a_whole_one(length: int) -> None:
    assert not summary([WHOLE[:length]])[1]
