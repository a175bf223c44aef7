"""What came in one read is told in one step, and says the same as event by event."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece, Pieces, PromptRead, taken_apart
from tokenwire.engines.openai.answer import DONE, Answer
from tokenwire.engines.openai.wire import Choice, Chunk


class LongWay(Answer):
    """Takes every chunk for one of the rare ones."""

    def _text(self, chunk: Chunk) -> Choice | None:
        return None


def _payload(*choices: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"choices": list(choices), **fields}).encode()


def _text(text: str, *ids: int, index: int = 0, **fields: Any) -> bytes:
    return _payload({"index": index, "text": text, "token_ids": list(ids), **fields})


def _chat(*ids: int, **delta: Any) -> bytes:
    return _payload({"index": 0, "delta": delta, "token_ids": list(ids)})


_words = st.text(st.sampled_from("aé水"), max_size=3)
_ids = st.lists(st.integers(0, 2**32 - 1), max_size=3) | st.none()
_plain = st.builds(
    lambda index, text, ids: _payload({"index": index, "text": text, "token_ids": ids}), st.integers(0, 1), _words, _ids
)
_deltas = st.builds(
    lambda content, ids, more: _payload({"index": 0, "delta": {"content": content} | more, "token_ids": ids}),
    _words | st.none(),
    _ids,
    st.sampled_from(
        [{}, {}, {}, {"reasoning": "hm"}, {"reasoning_content": "hm"}, {"tool_calls": [{"function": {"name": "f"}}]}]
    ),
)
_rare = st.sampled_from(
    [
        _text("last", 5, finish_reason="stop"),
        _text("", 6, index=1, finish_reason="length"),
        _text("", 7),
        _text("text and a delta", 7, delta={"content": "b"}),
        _payload({"index": 0, "text": "a"}, {"index": 1, "text": "b"}),
        _payload({"index": 2, "text": "nobody's"}),
        _payload(),
        _payload({"index": 0, "text": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 4}),
        _text("first", 8, prompt_token_ids=[1, 2]),
        _payload({"index": 0, "text": "a"}, prompt_token_ids=[1, 2]),
        b'{"error": "broken"}',
        b'{"choices": null}',
        b"no JSON",
        b"",
        _text("two in one", 1) + _text("b", 2),
        b'{"choices":',
        DONE,
    ]
)
_finished = st.just([_text("", finish_reason="stop"), _text("", index=1, finish_reason="stop"), DONE])
_streams = st.builds(
    lambda payloads, end: payloads + end,
    st.lists(_plain | _plain | _deltas | _deltas | _rare, max_size=14),
    _finished | st.just([]),
)


def _told(answer: Answer, reads: Sequence[Sequence[bytes]]) -> tuple[list[Generated], str | None, bool]:
    """Returns what an answer tells one by one, why it failed, and whether it is done."""
    told: list[Generated] = []
    try:
        for read in reads:
            answer.read(read, told)
    except EngineError as error:
        return taken_apart(told), error.reason, answer.done
    return taken_apart(told), None, answer.done


@settings(max_examples=400)
@given(_streams, st.integers(1, 20), st.sampled_from([1, 2]))
def test_any_stream_tells_the_same_in_large_reads_as_event_by_event(
    payloads: list[bytes], size: int, choices: int
) -> None:
    reads = [payloads[start : start + size] for start in range(0, len(payloads), size)]
    options: dict[str, Any] = {"stop_token_ids": {5}, "context_window": 20}
    expected = _told(LongWay(choices, **options), [[one] for one in payloads])
    assert _told(Answer(choices, **options), reads) == expected
    assert _told(Answer(choices, **options), [[one] for one in payloads]) == expected


@pytest.mark.parametrize("chunk", [_text, lambda text, *ids: _chat(*ids, content=text)])
def test_text_alone_that_came_in_one_read_is_told_as_one(chunk: Any) -> None:
    answer, told = Answer(1), list[Generated]()
    answer.read([chunk("a", 1), chunk("b", 2), chunk("c", 3, 4), chunk("d")], told)
    # The first may tell the prompt.
    assert told == [
        Piece(channel=Channel(), text="a", token_ids=[1], token_count=1),
        Pieces(channel=Channel(), texts=["b", "c", "d"], token_ids=[[2], [3, 4], ()]),
    ]
    del told[:]
    answer.read([chunk("e", 5)], told)
    assert told == [Piece(channel=Channel(), text="e", token_ids=[5], token_count=1)]


_END = [_text("", finish_reason="stop"), DONE]
_FULL = [_text("", finish_reason="length"), DONE]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("payloads", "reason", "matched"),
    [
        ([_text("b", 6), _text("c", 5), *_END], FinishReason.STOP_SEQUENCE, 5),
        ([_text("b", 5), _text("c"), *_END], FinishReason.STOP_SEQUENCE, 5),
        ([_text("b", 5), _text("c", 6), *_END], FinishReason.STOP, None),
        ([_text("b", 6), _text("c", 6), *_FULL], FinishReason.CONTEXT_LENGTH, None),
        ([_text("b", 6), _text("c"), *_FULL], FinishReason.LENGTH, None),
    ],
)
def test_what_is_told_as_one_counts_for_the_end(
    payloads: list[bytes], reason: FinishReason, matched: int | None, together: bool
) -> None:
    answer = Answer(1, stop_token_ids={5}, context_window=5)
    answer.read([_text("a", 6, prompt_token_ids=[1, 2])], [])
    told, _, done = _told(answer, [payloads] if together else [[one] for one in payloads])
    assert told[-1] == ChoiceDone(choice=0, finish_reason=reason, matched_stop=matched)
    assert done


@pytest.mark.parametrize("choice", [True, False])
@pytest.mark.parametrize("reasoning", ["reasoning", "reasoning_content"])
def test_what_comes_with_a_text_is_not_lost(choice: bool, reasoning: str) -> None:
    answer, ids = Answer(1), {"prompt_token_ids": [1, 2]}
    answer.read([_text("a", 3)], [])
    prompt = _payload({"text": "b"} | (ids if choice else {}), **({} if choice else ids))
    told, _, _ = _told(answer, [[_text("a", 3), prompt, _chat(4, content="c", **{reasoning: "hm"})]])
    assert PromptRead(prompt_tokens=2, cached_tokens=0, token_ids=[1, 2]) in told
    assert [item.text for item in told if isinstance(item, Piece)] == ["a", "b", "hm", "c"]


def test_a_chunk_that_was_cut_in_two_events_is_a_failure() -> None:
    whole = _text("c", 3)
    told, failure, _ = _told(Answer(1), [[_text("a", 1), _text("b", 2), whole[:12], whole[12:]]])
    assert failure == "UPSTREAM_PROTOCOL"
    assert [item.text for item in told if isinstance(item, Piece)] == ["a", "b"]


def test_texts_of_two_choices_keep_their_order() -> None:
    told: list[Generated] = []
    reads = [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 0)]
    answer = Answer(2)
    answer.read([_text("first", 1)], [])
    answer.read([_text(text, 1, index=index) for text, index in reads], told)
    assert [(item.channel.choice, item.text) for item in taken_apart(told) if isinstance(item, Piece)] == [
        (index, text) for text, index in reads
    ]
