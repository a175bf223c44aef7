"""Real answers of the native endpoint, replayed."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import Code
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, PromptRead, Totals
from tokenwire.domain.request import Logprobs, Output, Sampling, Stopping, Submission
from tokenwire.engines.sglang.server import Server
from unit.engines.openai.replay import cuts
from unit.engines.sglang.replay import SERVER, replay, stream_of

FRANCE = (504, 3575, 282, 4649, 314)
INCREMENTAL = Server(incremental=True, unknown_character=(24_211,))


ONE = Submission(stopping=Stopping(max_tokens=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A captured answer, and what it says."""

    name: str
    texts: tuple[str, ...]
    prompt: tuple[int, int]
    tokens: tuple[int, ...]
    reason: FinishReason = FinishReason.LENGTH
    matched: str | int | None = None
    asked: Submission = ONE
    server: Server = SERVER


def _limited(tokens: int, n: int | None = None) -> Submission:
    return Submission(stopping=Stopping(max_tokens=tokens), sampling=Sampling(n=n))


def _stopping(**fields: object) -> Submission:
    return Submission(stopping=Stopping(max_tokens=300, **fields))  # type: ignore[arg-type]


STOP, STOP_SEQUENCE = FinishReason.STOP, FinishReason.STOP_SEQUENCE
EMOJI = " 😇 😊" + 4 * "\uff0d"
KAITO = (
    ", in a world where time was currency, a mysterious figure named Chronos appeared to a young apprentice named "
    "Kaito.\n\nKaito was a skilled swordsman who had been trained by"
)
HI = (
    "Hello there. I'm here to help with any kind of math or science project. I'm a math and science expert. "
    "What can I help you with?"
)
JSON = '{"name": "John", "age": 25}'

CAPTURES = [
    Capture(name="gen_stream_full.txt", texts=(" Paris.\n\nThe answer",), prompt=(5, 4), tokens=(6,)),
    Capture(name="gen_nonstream.txt", texts=(" Paris.\n\nThe answer is:",), prompt=(5, 0), tokens=(8,)),
    Capture(
        name="gen_n2_stream.txt",
        texts=(" Paris, and", " Paris.\n"),
        prompt=(5, 4),
        tokens=(3, 3),
        asked=_limited(3, 2),
    ),
    Capture(name="gen_logprob_stream.txt", texts=(" Paris.\n",), prompt=(5, 4), tokens=(3,)),
    Capture(name="utf8_stream.txt", texts=(EMOJI,), prompt=(10, 0), tokens=(12,)),
    Capture(name="incr_gen_stream.txt", texts=(" Paris.\n\n",), prompt=(5, 0), tokens=(4,), server=INCREMENTAL),
    Capture(name="incr_gen_stream_lp.txt", texts=(" Paris.",), prompt=(5, 4), tokens=(2,), server=INCREMENTAL),
    # What the server said of itself is old: it has come back with another setting.
    Capture(name="incr_gen_stream.txt", texts=(" Paris.\n\n",), prompt=(5, 0), tokens=(4,)),
    Capture(
        name="gen_stream_full.txt",
        texts=(" Paris.\n\nThe answer",),
        prompt=(5, 4),
        tokens=(6,),
        server=INCREMENTAL,
    ),
    # A choice that had fewer tokens than it asked for ended where the window does.
    Capture(
        name="gen_stream_full.txt",
        texts=(" Paris.\n\nThe answer",),
        prompt=(5, 4),
        tokens=(6,),
        reason=FinishReason.CONTEXT_LENGTH,
        asked=_limited(7),
    ),
    Capture(name="gen_eos_matched.txt", texts=(HI,), prompt=(12, 0), tokens=(33,), reason=STOP, asked=_stopping()),
    # The model's own end that the request named too.
    Capture(
        name="gen_eos_matched.txt",
        texts=(HI,),
        prompt=(12, 0),
        tokens=(33,),
        reason=STOP_SEQUENCE,
        matched=2,
        asked=_stopping(stop_token_ids=(2,)),
    ),
    Capture(
        name="gen_stop.txt",
        texts=(" 6 7 8 ",),
        prompt=(9, 0),
        tokens=(8,),
        reason=STOP_SEQUENCE,
        matched="9",
        asked=_stopping(stop=("9",)),
    ),
    # The operator's stop string is none of the request's.
    Capture(name="gen_stop.txt", texts=(" 6 7 8 ",), prompt=(9, 0), tokens=(8,), reason=STOP, asked=_stopping()),
    Capture(
        name="gen_stop_held_stream.txt",
        texts=(" 6 7 ",),
        prompt=(9, 8),
        tokens=(8,),
        reason=STOP_SEQUENCE,
        matched="8 9",
        asked=_stopping(stop=("8 9", "x")),
    ),
    Capture(
        name="gen_stop_token_stream.txt",
        texts=(" Paris",),
        prompt=(5, 4),
        tokens=(2,),
        reason=STOP_SEQUENCE,
        matched=30,
        asked=_stopping(stop_token_ids=(30,)),
    ),
    Capture(name="gen_json_schema.txt", texts=(JSON,), prompt=(6, 0), tokens=(14,), reason=STOP, asked=_stopping()),
    Capture(name="gen_max0.txt", texts=("",), prompt=(5, 4), tokens=(0,), reason=FinishReason.CONTEXT_LENGTH),
    Capture(name="queue_0.txt", texts=(KAITO,), prompt=(5, 4), tokens=(40,)),
    # What is left of a character that the limit has cut off is not told.
    Capture(name="gen_cut_character_stream.txt", texts=("��",), prompt=(1, 0), tokens=(3,)),
    # The same signs, which the model means.
    Capture(name="gen_unknown_character_stream.txt", texts=("���",), prompt=(1, 0), tokens=(3,)),
    # The Rust server.
    Capture(name="rust_gen_stream_full.txt", texts=(" Paris.\n\nThe answer",), prompt=(5, 4), tokens=(6,)),
    Capture(
        name="rust_gen_apart_stream.txt",
        texts=(" Paris.\n", " Paris.\n"),
        prompt=(5, 4),
        tokens=(3, 3),
        asked=_limited(3, 2),
    ),
    Capture(
        name="rust_gen_stop_held_stream.txt",
        texts=(" 6 7 ",),
        prompt=(9, 1),
        tokens=(8,),
        reason=STOP_SEQUENCE,
        matched="8 9",
        asked=_stopping(stop=("8 9", "x")),
    ),
    Capture(
        name="rust_gen_stop_token_stream.txt",
        texts=(" Paris",),
        prompt=(5, 4),
        tokens=(2,),
        reason=STOP_SEQUENCE,
        matched=30,
        asked=_stopping(stop_token_ids=(30,)),
    ),
    Capture(name="rust_gen_eos_matched.txt", texts=(HI,), prompt=(12, 1), tokens=(33,), reason=STOP, asked=_stopping()),
    Capture(name="rust_utf8_stream.txt", texts=(" 😏👩👨👩",), prompt=(10, 2), tokens=(12,)),
    Capture(name="rust_gen_cut_character_stream.txt", texts=("��",), prompt=(1, 0), tokens=(3,)),
    Capture(name="rust_gen_unknown_character_stream.txt", texts=("���",), prompt=(1, 0), tokens=(3,)),
]
EVERY = pytest.mark.parametrize("capture", CAPTURES, ids=[f"{at}-{one.name}" for at, one in enumerate(CAPTURES)])


def check(capture: Capture, chunks: list[bytes]) -> None:
    told = replay(chunks, capture.asked, server=capture.server)
    assert told.failure is None
    count = len(capture.texts)
    assert {choice: told.texts.get(choice, "") for choice in range(count)} == dict(enumerate(capture.texts))
    assert tuple(told.counts.get(choice, 0) for choice in range(count)) == capture.tokens
    assert tuple(len(told.ids.get(choice, ())) for choice in range(count)) == capture.tokens
    assert told.prompt == PromptRead(prompt_tokens=capture.prompt[0], cached_tokens=capture.prompt[1])
    assert sorted(told.ends, key=lambda end: end.choice) == [
        ChoiceDone(choice=choice, finish_reason=capture.reason, matched_stop=capture.matched) for choice in range(count)
    ]
    assert told.totals == Totals(
        prompt_tokens=capture.prompt[0],
        cached_tokens=capture.prompt[1],
        output_tokens=sum(capture.tokens),
        reasoning_tokens=0,
    )


@EVERY
def test_a_capture_tells_its_text_its_ids_its_end_and_its_counts(capture: Capture) -> None:
    check(capture, [stream_of(capture.name)])


@EVERY
def test_a_capture_tells_the_same_byte_by_byte(capture: Capture) -> None:
    stream = stream_of(capture.name)
    check(capture, cuts(stream, range(len(stream))))


@given(capture=st.sampled_from(CAPTURES), places=st.lists(st.integers(0, 8000), max_size=30))
def test_a_capture_tells_the_same_however_its_bytes_are_cut(capture: Capture, places: list[int]) -> None:
    check(capture, cuts(stream_of(capture.name), places))


@pytest.mark.parametrize(
    "name",
    [
        "gen_stream.txt",
        "gen_ebnf.txt",
        "gen_regex.txt",
        "gen_input_ids.txt",
        "gen_priority.txt",
        "gen_repeat.txt",
        "gen_rid.txt",
        "gen_logprob.txt",
        *(f"queue_{number}.txt" for number in (1, 2, 3, 6)),
    ],
)
def test_other_answers_are_read_to_their_end(name: str) -> None:
    told = replay([stream_of(name)], _limited(1))
    assert told.failure is None
    assert len(told.ids[0]) == told.counts[0]
    assert told.totals is not None
    assert told.totals.output_tokens == told.counts[0]


def test_the_ids_of_the_prompt_are_told_if_they_were_sent() -> None:
    told = replay([stream_of("gen_stream_full.txt")], prompt_ids=FRANCE)
    assert told.prompt == PromptRead(prompt_tokens=5, cached_tokens=4, token_ids=FRANCE)


def test_ids_that_are_not_the_prompt_as_it_was_read_are_not_told() -> None:
    told = replay([stream_of("gen_stream_full.txt")], prompt_ids=FRANCE[1:])
    assert told.prompt == PromptRead(prompt_tokens=5, cached_tokens=4)


def test_no_part_of_a_character_is_told_on_the_way() -> None:
    stream = stream_of("utf8_stream.txt")
    for end in range(1, len(stream)):
        told = replay([stream[:end]], _limited(12))
        assert "�" not in told.texts.get(0, "")
        assert EMOJI.startswith(told.texts.get(0, ""))


@pytest.mark.parametrize("name", ["gen_stream_full.txt", "gen_n2_stream.txt", "incr_gen_stream.txt"])
def test_a_stream_that_breaks_off_is_a_failure_with_what_it_told_before(name: str) -> None:
    stream = stream_of(name)
    whole = replay([stream], _limited(1, 2 if "n2" in name else 1))
    for end in range(0, len(stream) - len(b"data: [DONE]\n\n"), 50):
        told = replay([stream[:end]], _limited(1, 2 if "n2" in name else 1))
        assert told.failure is not None
        assert (told.failure.reason, told.totals) == ("ENGINE_LOST", None)
        assert all(whole.texts[choice].startswith(text) for choice, text in told.texts.items())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("abort_stream.txt", ", the city of Nova Haven was a thriving metropolis,"),
        ("abort_nonstream.txt", None),
        ("abort_all_victim.txt", ", the city of Nova Haven was a thriving metropolis, with towering"),
    ],
)
def test_an_aborted_choice_is_a_failure_after_its_text(name: str, text: str | None) -> None:
    told = replay([stream_of(name)])
    assert told.failure is not None
    assert (told.failure.reason, told.failure.retryable) == ("ENGINE_ABORTED", True)
    assert text is None or told.texts == {0: text}
    assert told.texts[0]
    assert not told.ends


def test_a_full_queue_is_told_as_overload() -> None:
    told = replay([stream_of("qfull_gen_stream.txt")])
    assert told.failure is not None
    assert (told.failure.code, told.failure.reason, told.failure.retryable) == (
        Code.UNAVAILABLE,
        "ENGINE_OVERLOADED",
        True,
    )
    assert (told.texts, told.ends, told.prompt) == ({}, [], None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("err_temp_neg_stream.txt", "ENGINE_REFUSED"),
        ("err_toolong_generate_stream.txt", "CONTEXT_LENGTH_EXCEEDED"),
        ("gen_sum_toolong_stream.txt", "CONTEXT_LENGTH_EXCEEDED"),
        # SGLang sends a token of no answer with it.
        ("gen_bad_regex_stream.txt", "ENGINE_REFUSED"),
    ],
)
def test_a_refusal_inside_a_stream_is_one_and_nothing_is_told_before_it(name: str, reason: str) -> None:
    told = replay([stream_of(name)])
    assert told.failure is not None
    assert (told.failure.code, told.failure.reason) == (Code.INVALID_ARGUMENT, reason)
    assert (told.texts, told.prompt) == ({}, None)
    assert "regex_converter" not in str(told.failure)


PROMPT = ("The", " capital", " of", " France", " is")


@pytest.mark.parametrize(
    "name",
    [
        "gen_logprobs_all_stream.txt",
        "gen_logprobs_n2_stream.txt",
        "rust_gen_logprobs_all_stream.txt",
        "rust_gen_apart_logprobs_stream.txt",
    ],
)
def test_log_probabilities_are_trimmed_to_what_was_asked_for_of_each_side(name: str) -> None:
    n = 2 if "n2" in name or "apart" in name else 1
    asked = Submission(
        stopping=Stopping(max_tokens=3),
        sampling=Sampling(n=n),
        output=Output(logprobs=Logprobs(top_n=2, token_ids=(5, 6)), prompt_logprobs=Logprobs(top_n=1, token_ids=(7,))),
    )
    told = replay([stream_of(name)], asked, FRANCE)
    assert told.failure is None
    assert tuple(one.token for one in told.prompt_logprobs) == PROMPT
    assert tuple(one.token_id for one in told.prompt_logprobs) == FRANCE
    first, *rest = told.prompt_logprobs
    assert (first.logprob, first.top, first.given) == (None, (), ())
    for one in rest:
        assert len(one.top) == 1
        assert [given.token_id for given in one.given] == [7]
    for choice in range(n):
        assert [one.token_id for one in told.logprobs[choice]] == told.ids[choice]
        for one in told.logprobs[choice]:
            assert one.logprob is not None
            assert len(one.top) == 2
            assert [given.token_id for given in one.given] == [5, 6]
    assert n == 2 or told.logprobs[0][0].token == " Paris"


def test_log_probabilities_of_increments_are_told_once() -> None:
    asked = Submission(stopping=Stopping(max_tokens=2), output=Output(logprobs=Logprobs(top_n=0)))
    told = replay([stream_of("incr_gen_stream_lp.txt")], asked)
    assert [one.token_id for one in told.logprobs[0]] == [7042, 30]
    assert told.logprobs[0][0].logprob == pytest.approx(-0.2714, abs=1e-4)


def test_log_probabilities_that_were_not_asked_for_are_not_told() -> None:
    told = replay([stream_of("gen_logprobs_all_stream.txt")], _limited(3))
    assert (told.prompt_logprobs, told.logprobs) == ((), {0: []})
