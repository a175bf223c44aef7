"""What is new in each event, of all that a choice has written or of increments."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, Piece
from tokenwire.domain.request import Logprobs, Output, Sampling, Stopping, Submission
from tokenwire.engines.sglang.answer import Answer
from tokenwire.engines.sglang.choice import fresh
from tokenwire.engines.sglang.server import Server
from unit.engines.sglang.replay import Told, replay

UNKNOWN = 7
# Ids and their texts; the last two of them begin and end a character.
TEXTS = {1: "a", 2: "aa", 3: " é", 4: "\n", 5: "😀", 6: "", UNKNOWN: "�"}
ASKED = Submission(stopping=Stopping(max_tokens=1), output=Output(logprobs=Logprobs(top_n=1)))


def event(text: str, ids: Sequence[int] | None, count: int, **meta: Any) -> dict[str, Any]:
    """Returns an event of the first choice."""
    told: dict[str, Any] = {"text": text, "meta_info": {"id": "r", "prompt_tokens": 1, "completion_tokens": count}}
    told["meta_info"].update(meta)
    return told if ids is None else told | {"output_ids": list(ids)}


def scored(ids: Sequence[int]) -> dict[str, Any]:
    return {
        "output_token_logprobs": [[-float(one), one, str(one)] for one in ids],
        "output_top_logprobs": [[[-float(one), one, str(one)]] for one in ids],
    }


def stream(events: Sequence[dict[str, Any]]) -> list[bytes]:
    """Returns one read for each event, the terminator's included."""
    return [b"data: " + json.dumps(one).encode() + b"\n\n" for one in events] + [b"data: [DONE]\n\n"]


def both_forms(parts: Sequence[Sequence[int]], matched: int | None) -> tuple[list[bytes], list[bytes]]:
    """Returns an answer in parts as a server tells it that repeats all, and as one that tells what is new."""
    whole: list[dict[str, Any]] = []
    increments: list[dict[str, Any]] = []
    sent, seen = "", [one for part in parts for one in part]
    seen = []
    for place, part in enumerate(parts):
        seen = [*seen, *part]
        last = place == len(parts) - 1
        meant = seen[:-1] if last and matched is not None else seen
        text = "".join(TEXTS[one] for one in meant)
        if not last:
            # SGLang holds a sign back that may be an unfinished character.
            text = text.rstrip("�")
        text = text if text.startswith(sent) else sent
        reason = {"type": "length"} if matched is None else {"type": "stop", "matched": matched}
        finish = {"finish_reason": reason if last else None}
        whole.append(event(text, seen, len(seen), **finish, **scored(seen)))
        increments.append(event(text[len(sent) :], part, len(seen), **finish, **scored(part)))
        sent = text
    return stream(whole), stream(increments)


def pieces(told: Told) -> tuple[object, ...]:
    assert told.failure is None
    return told.texts, told.ids, told.counts, told.logprobs, told.ends, told.totals


PARTS = st.lists(st.lists(st.sampled_from(list(TEXTS)), min_size=0, max_size=3), min_size=1, max_size=8)


@given(
    parts=PARTS,
    ended=st.booleans(),
    said=st.booleans(),
    cut=st.lists(st.integers(0, 4000), max_size=20),
)
def test_both_forms_of_an_answer_tell_the_same_whatever_the_server_said_and_however_bytes_are_cut(
    parts: list[list[int]], ended: bool, said: bool, cut: list[int]
) -> None:
    if ended:
        parts = [*parts, [6]]
    server = Server(incremental=said, unknown_character=(UNKNOWN,))
    whole, increments = both_forms(parts, 6 if ended else None)
    first = replay(whole, ASKED, server=server)
    second = replay(increments, ASKED, server=server)
    assert pieces(first) == pieces(second)
    flat = b"".join(increments)
    ends = [*sorted({place for place in cut if 0 < place < len(flat)}), len(flat)]
    split = [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    assert pieces(replay(split, ASKED, server=server)) == pieces(first)
    ids = [one for part in parts for one in part]
    assert first.ids.get(0, []) == ids
    assert first.texts.get(0, "") == "".join(TEXTS[one] for one in (ids[:-1] if ended else ids))
    assert [one.token_id for one in first.logprobs.get(0, [])] == ids


def test_the_same_text_twice_is_told_once_or_twice_as_the_ids_say() -> None:
    end = {"finish_reason": {"type": "length"}}
    whole = stream([event("aa", [2], 1), event("aa", [2, 6], 2, **end)])
    increments = stream([event("aa", [2], 1), event("aa", [2], 2, **end)])
    for said in (False, True):
        assert replay(whole, server=Server(incremental=said)).texts == {0: "aa"}
        assert replay(increments, server=Server(incremental=said)).texts == {0: "aaaa"}


@pytest.mark.parametrize(("said", "text"), [(False, "ab"), (True, "aab")])
def test_without_ids_what_the_server_said_of_itself_counts(said: bool, text: str) -> None:
    told = replay(
        stream([event("a", None, 1), event("ab", None, 2, finish_reason={"type": "length"})]),
        server=Server(incremental=said),
    )
    assert (told.texts, told.ids, told.counts) == ({0: text}, {0: []}, {0: 2})


def test_ids_that_run_ahead_of_the_text_wait_for_it() -> None:
    # A list of all ids may have grown before the event was written.
    told = replay(stream([event("a", [1, 1], 1), event("aa", [1, 1], 2, finish_reason={"type": "length"})]))
    assert (told.texts, told.ids, told.counts) == ({0: "aa"}, {0: [1, 1]}, {0: 2})


def test_text_that_shrinks_is_not_told_twice() -> None:
    end = {"finish_reason": {"type": "stop", "matched": "ab"}}
    told = replay(stream([event("xa", [1, 2], 2), event("x", [1, 2, 3], 3), event("xa", [1, 2, 3, 4], 4, **end)]))
    assert (told.texts, told.ids) == ({0: "xa"}, {0: [1, 2, 3, 4]})


def test_the_sign_of_an_unfinished_character_waits_for_what_it_becomes() -> None:
    end = {"finish_reason": {"type": "length"}}
    whole = stream([event("a�", [1, 5], 2), event("a😀b", [1, 5, 5], 3, **end)])
    increments = stream([event("a�", [1, 5], 2), event("b", [1], 3, **end)])
    for chunks, text in ((whole, "a😀b"), (increments, "a�b")):
        assert replay(chunks[:1]).texts == {0: "a"}
        assert replay(chunks).texts == {0: text}


@pytest.mark.parametrize("n", [1, 2])
def test_a_terminator_before_every_choice_has_ended_is_a_failure(n: int) -> None:
    finish = {"finish_reason": {"type": "length"}} if n == 2 else {}
    told = replay(stream([event("a", [1], 1, **finish)]), Submission(sampling=Sampling(n=n)))
    assert told.failure is not None
    assert (told.failure.reason, told.totals) == ("ENGINE_LOST", None)


@pytest.mark.parametrize(
    "events",
    [
        [event("a", [1], 1), event("b", [1, 2], 2)],
        [event("a", [1], 1), event("ab", [3, 2], 2)],
        [event("a", [1], 1), event("ab", [1, 2], 4)],
        [event("a", [1, 2], 2), event("a", [1], 1)],
        [event("a", [1], 2)],
        [event("a", [1], 1), event("b", [2], 2), event("abc", [1, 2, 3], 3)],
        [{"text": "a", "output_ids": [1], "meta_info": {}}],
        [{"text": "a", "output_ids": [1]}],
        [event("a", [1], 1) | {"index": 1}],
        [event("a", [1], 1, finish_reason={"type": "length"}), event("ab", [1, 2], 2)],
    ],
)
def test_events_that_do_not_go_on_from_each_other_are_not_the_engines_protocol(events: list[dict[str, Any]]) -> None:
    told = replay(stream(events))
    assert told.failure is not None
    assert told.failure.reason == "UPSTREAM_PROTOCOL"
    assert told.texts.get(0, "") in ("", "a", "ab")


def test_a_list_of_log_probabilities_that_fits_no_form_is_not_the_engines_protocol() -> None:
    short = event("ab", [1, 2], 2, finish_reason={"type": "length"}, **scored([1]))
    told = replay(stream([short]), ASKED)
    assert told.failure is not None
    assert told.failure.reason == "UPSTREAM_PROTOCOL"


def test_prompt_log_probabilities_that_never_come_are_a_failure() -> None:
    asked = Submission(output=Output(prompt_logprobs=Logprobs(top_n=0)))
    told = replay(stream([event("a", [1], 1, finish_reason={"type": "length"})]), asked)
    assert told.failure is not None
    assert told.failure.reason == "UPSTREAM_PROTOCOL"


def test_what_is_repeated_of_a_choice_that_is_given_up_while_it_waits_is_not_told_again() -> None:
    # Such an event tells all of the text and the last id, whatever the form of the stream.
    abort = {"finish_reason": {"type": "abort", "message": "Aborted"}}
    told = replay(stream([event("a", [1], 1), event("b", [2], 2), event("ab", [2], 2, **abort)]))
    assert (told.texts, told.ids) == ({0: "ab"}, {0: [1, 2]})
    assert told.failure is not None
    assert told.failure.reason == "ENGINE_ABORTED"


@pytest.mark.parametrize("status", [500, 503])
def test_a_choice_that_a_more_urgent_one_drove_out_can_be_tried_again(status: int) -> None:
    abort = {"type": "abort", "message": "The request is aborted by a higher priority request.", "status_code": status}
    told = replay(stream([event("", [], 0, finish_reason=abort)]))
    assert told.failure is not None
    assert told.failure.reason == {500: "ENGINE_ABORTED", 503: "ENGINE_OVERLOADED"}[status]
    assert told.failure.retryable


def test_text_that_came_in_one_read_with_a_failure_is_kept() -> None:
    batch: list[Generated] = []
    answer = Answer(Submission(), (), Server())
    good = json.dumps(event("a", [1], 1)).encode()
    with pytest.raises(EngineError):
        answer.read([good, b'{"error": {"message": "secret prompt", "code": 500}}'], batch)
    assert [item.text for item in batch if isinstance(item, Piece)] == ["a"]


def test_of_a_list_the_new_entries_are_taken() -> None:
    assert fresh([1, 2, 3], 1, 3) == [2, 3]
    assert fresh([2, 3], 1, 3) == [2, 3]
    assert fresh([1, 2, 3, 4], 1, 3) == [2, 3]
    assert fresh([], 3, 3) == []
    with pytest.raises(EngineError):
        fresh([1], 1, 4)
