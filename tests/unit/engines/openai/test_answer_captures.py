"""Real streams of real engines, replayed."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import CallHead, ChoiceDone, Totals
from unit.engines import captures
from unit.engines.openai.replay import Told, cuts, replay

CALL = Channel(0, ChannelKind.TOOL_CALL, 0)
LENGTH = FinishReason.LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A captured stream that is an answer, and what it says."""

    engine: str
    name: str
    texts: tuple[str, ...]
    ends: tuple[ChoiceDone, ...] = (ChoiceDone(choice=0, finish_reason=LENGTH),)
    totals: Totals | None = None

    @property
    def body(self) -> bytes:
        """The bytes that came."""
        return captures.body(self.engine, self.name)

    def told(self) -> Told:
        """What must be told."""
        texts = {Channel(choice): text for choice, text in enumerate(self.texts)}
        return Told(texts=texts, ends=list(self.ends), totals=self.totals)


def _stopped(matched: str) -> tuple[ChoiceDone, ...]:
    return (ChoiceDone(choice=0, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=matched),)


_BOTH = (ChoiceDone(choice=0, finish_reason=LENGTH), ChoiceDone(choice=1, finish_reason=LENGTH))

CAPTURES = [
    Capture(engine="vllm", name="10b-completions-stream-rawchunks.resp", texts=(" Paris.\n\nThe answer",)),
    Capture(
        engine="vllm",
        name="11-completions-stream-usage.resp",
        texts=(" Paris.\n\nThe answer",),
        totals=Totals(prompt_tokens=5, cached_tokens=0, output_tokens=6),
    ),
    Capture(
        engine="vllm",
        name="17-completions-stream-n2.resp",
        texts=(" Paris, the capital", " Monaco, which"),
        ends=_BOTH,
    ),
    Capture(
        engine="vllm",
        name="19b-completions-stop-stream.resp",
        texts=(" Paris.\n\nThe ",),
        ends=_stopped("answer"),
    ),
    Capture(engine="vllm", name="29d-completions-stream-interval4.resp", texts=(" Paris.\n\nThe answer is: 2",)),
    Capture(engine="vllm", name="41-chat-stream.resp", texts=("The capital of France",)),
    Capture(
        engine="vllm",
        name="41b-chat-stream-rawchunks.resp",
        texts=("The capital of France is Paris.",),
        ends=(ChoiceDone(choice=0, finish_reason=FinishReason.STOP),),
        totals=Totals(prompt_tokens=37, cached_tokens=0, output_tokens=8),
    ),
    Capture(engine="vllm", name="45-chat-stream-n2.resp", texts=("Alles", "Enchant"), ends=_BOTH),
    Capture(engine="vllm", name="46b-chat-stop-stream.resp", texts=("The capital of ",), ends=_stopped("France is")),
    Capture(
        engine="sglang",
        name="cmpl_stream.txt",
        texts=(" Paris.\n\n",),
        totals=Totals(prompt_tokens=5, cached_tokens=4, output_tokens=4, reasoning_tokens=0),
    ),
    Capture(engine="sglang", name="cmpl_stream_nousage.txt", texts=(" Paris.",)),
    Capture(
        engine="sglang",
        name="cmpl_stream_continuous.txt",
        texts=(" Paris.\n",),
        totals=Totals(prompt_tokens=5, cached_tokens=4, output_tokens=3, reasoning_tokens=0),
    ),
    Capture(
        engine="sglang",
        name="chat_stream_full.txt",
        texts=("Hello there! I",),
        totals=Totals(prompt_tokens=33, cached_tokens=1, output_tokens=4, reasoning_tokens=0),
    ),
    Capture(
        engine="llama-cpp",
        name="01-chat-stream.txt",
        texts=("1. Red: This is the most",),
        totals=Totals(prompt_tokens=34, cached_tokens=0, output_tokens=8),
    ),
    Capture(
        engine="llama-cpp",
        name="02-completions-stream.txt",
        texts=(" Paris.\n\nThe",),
        totals=Totals(prompt_tokens=5, cached_tokens=0, output_tokens=5),
    ),
    Capture(engine="llama-cpp", name="07b-n2-stream.txt", texts=("I'm here", "Awesome"), ends=_BOTH[::-1]),
    Capture(
        engine="llama-cpp",
        name="08-stop.txt",
        texts=(" 5, 6, ",),
        # llama.cpp does not tell which stop string it was.
        ends=(ChoiceDone(choice=0, finish_reason=FinishReason.STOP),),
        totals=Totals(prompt_tokens=11, cached_tokens=0, output_tokens=8),
    ),
]
IDS = [f"{capture.engine}-{capture.name}" for capture in CAPTURES]
EVERY = pytest.mark.parametrize("capture", CAPTURES, ids=IDS)


@EVERY
def test_a_capture_tells_its_text_its_end_and_its_counts(capture: Capture) -> None:
    assert replay([capture.body], len(capture.texts)) == capture.told()


@EVERY
def test_a_capture_tells_the_same_byte_by_byte(capture: Capture) -> None:
    body = capture.body
    assert replay(cuts(body, range(len(body))), len(capture.texts)) == capture.told()


@settings(deadline=None)
@given(capture=st.sampled_from(CAPTURES), places=st.lists(st.integers(0, 5000), max_size=30))
def test_a_capture_tells_the_same_however_its_bytes_are_cut(capture: Capture, places: list[int]) -> None:
    assert replay(cuts(capture.body, places), len(capture.texts)) == capture.told()


@EVERY
def test_a_capture_that_ends_early_is_a_failure_at_every_event(capture: Capture) -> None:
    events = captures.events(capture.body)
    assert len(events) > 2
    for count in range(len(events)):
        assert events[count].startswith(b"data: ")
        _is_cut(replay([b"".join(events[:count])], len(capture.texts)), capture)


@settings(deadline=None)
@given(capture=st.sampled_from(CAPTURES), place=st.integers(0, 5000))
def test_a_capture_that_ends_early_is_a_failure_at_any_byte(capture: Capture, place: int) -> None:
    body = capture.body
    whole = body[: body.index(b"data: [DONE]")] + b"data: [DONE]\n"
    _is_cut(replay([whole[:place]], len(capture.texts)), capture)


def _is_cut(told: Told, capture: Capture) -> None:
    assert told.failure == "ENGINE_LOST"
    assert told.totals is None
    for channel, text in told.texts.items():
        assert capture.texts[channel.choice].startswith(text)


@EVERY
def test_a_capture_is_a_failure_while_more_choices_were_asked_for(capture: Capture) -> None:
    assert replay([capture.body], len(capture.texts) + 1).failure == "ENGINE_LOST"


@EVERY
def test_nothing_after_the_terminator_is_read(capture: Capture) -> None:
    body = capture.body + b'data: {"error":{"message":"late"}}\n\ndata: garbage\n\n'
    assert replay([body], len(capture.texts)) == capture.told()


def test_reasoning_that_comes_unasked_has_its_own_channel() -> None:
    told = replay([captures.body("sglang", "tool_required_stream.txt")])
    assert told.failure is None
    assert told.ends == [ChoiceDone(choice=0, finish_reason=LENGTH)]
    (channel,) = told.texts
    assert channel == Channel(0, ChannelKind.REASONING)
    assert told.texts[channel].startswith("Bienvenue, welcome to the City of Light!")


def test_a_tool_call_that_comes_unasked_has_its_head_and_its_arguments() -> None:
    told = replay([captures.body("vllm", "50d-tools-required-strict-stream.resp")])
    assert told.failure is None
    assert told.heads == [CallHead(channel=CALL, id="chatcmpl-tool-adc61fb091dec18d", name="get_weather")]
    assert told.texts == {CALL: '{\n    "city": "Paris"\n}'}
    assert told.ends == [ChoiceDone(choice=0, finish_reason=FinishReason.TOOL_CALLS)]


def test_an_aborted_stream_is_a_failure_and_keeps_its_text() -> None:
    told = replay([captures.body("sglang", "abort_chat_stream.txt")])
    assert told.failure == "ENGINE_ABORTED"
    assert not told.ends
    assert told.texts[Channel()].startswith("Did we discuss this for someone?")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("qfull_cmpl_stream.txt", "ENGINE_OVERLOADED"),
        ("err_temp_neg_stream.txt", "ENGINE_REFUSED"),
        ("err_toolong_generate_stream.txt", "CONTEXT_LENGTH_EXCEEDED"),
    ],
)
def test_an_error_under_a_200_is_a_failure(name: str, reason: str) -> None:
    assert replay([captures.body("sglang", name)]) == Told(failure=reason)
