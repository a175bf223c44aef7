"""Real answers of the Python front end, streams and whole ones, replayed."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Totals
from tokenwire.engines.openai.answer import Answer
from unit.engines import captures
from unit.engines.openai.replay import Told, cuts, replay

TEXT, CALL = Channel(), Channel(0, ChannelKind.TOOL_CALL, 0)
LENGTH, STOP, TOOLS = FinishReason.LENGTH, FinishReason.STOP, FinishReason.TOOL_CALLS
OWN_STOP_TOKENS = frozenset({30})
PARIS = [7042, 30, 198, 198, 504, 2988]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A captured answer and what it says; `usage` is prompt, cached and output tokens; `ids` those of the last
    channel."""

    name: str
    text: str
    finish: FinishReason = LENGTH
    matched: str | int | None = None
    usage: tuple[int, int | None, int] | None = None
    ids: tuple[int, ...] = ()
    channel: Channel = TEXT
    others: tuple[str, ...] = ()

    @property
    def body(self) -> bytes:
        """The bytes that came."""
        return captures.body("vllm", f"{self.name}.resp")

    @property
    def choices(self) -> int:
        """How many choices there are."""
        return 1 + len(self.others)

    def check(self, told: Told) -> None:
        """Compares with what was told."""
        assert told.failure is None
        rest = {Channel(place): text for place, text in enumerate(self.others, 1)}
        assert told.texts == {self.channel: self.text} | rest
        ends = [ChoiceDone(choice=0, finish_reason=self.finish, matched_stop=self.matched)]
        ends += [ChoiceDone(choice=place, finish_reason=LENGTH) for place in range(1, self.choices)]
        assert sorted(told.ends, key=lambda end: end.choice) == ends
        assert [head.name for head in told.heads] == (["get_weather"] if self.channel == CALL else [])
        if self.usage is None:
            assert told.totals is None
        else:
            prompt, cached, output = self.usage
            assert told.totals == Totals(prompt_tokens=prompt, cached_tokens=cached, output_tokens=output)
        if self.ids:
            assert told.ids[self.channel] == list(self.ids)
            assert told.prompt is not None
        if told.ids and self.usage is not None and self.name != "whole-beam":
            assert sum(told.counts.values()) == self.usage[2]


_CITY = '{"city": "Paris"}'
_CITY_LINES = '{\n    "city": "Paris"\n}'
_AUTO = "The weather in Paris is quite unique. It's"
_OBJECT = (
    '{\n"description": "Paris",\n"location": "Paris",\n"country": "France",\n"city": "Paris",\n"capital": "Paris",\n'
    '"official_'
)
_SANTELME = '{\n"name": "Santelmé",\n"age": 22\n}'

STREAMS = [
    Capture(name="12-completions-stream-continuous-usage", text=" Paris.\n\nThe answer", usage=(5, 0, 6)),
    Capture(name="14-completions-stream-logprobs", text=" Paris."),
    Capture(name="16-completions-stream-return_token_ids", text=" Paris.\n", ids=(7042, 30, 198)),
    Capture(name="42-chat-stream-continuous-usage", text="The capital", usage=(37, 0, 2)),
    Capture(name="43b-chat-stream-logprobs", text="The capital"),
    Capture(name="44b-chat-stream-return_token_ids", text="The capital of", ids=(504, 3575, 282)),
    Capture(name="54b-tools-auto-forced-hermes-regex-stream", text=_CITY, finish=TOOLS, channel=CALL),
    Capture(name="60b-json_schema-stream", text=_SANTELME, finish=STOP),
    Capture(
        name="sent-completion-stop-string",
        text=" Paris.\n\nThe ",
        finish=FinishReason.STOP_SEQUENCE,
        matched="answer",
        usage=(5, 0, 6),
        ids=tuple(PARIS),
    ),
    Capture(
        name="sent-completion-stop-token",
        text=" Paris",
        finish=FinishReason.STOP_SEQUENCE,
        matched=30,
        usage=(5, 0, 2),
        ids=(7042, 30),
    ),
    Capture(
        name="sent-completion-n2",
        text=" Paris.\n\n",
        others=(" Paris. Marco Polo",),
        usage=(5, 0, 8),
        ids=(7042, 30, 198, 198),
    ),
    Capture(name="sent-completion-logprobs", text=" Paris.", usage=(5, 0, 2), ids=(7042, 30)),
    Capture(name="sent-completion-given-logprobs", text=" Paris.", usage=(5, 0, 2), ids=(7042, 30)),
    Capture(name="sent-chat-logprobs", text=" synagogue see manual", usage=(32, 0, 3), ids=(27954, 963, 8961)),
    Capture(name="sent-chat-named-tool", text=_CITY_LINES, finish=TOOLS, channel=CALL, usage=(131, 0, 33)),
    Capture(name="sent-chat-required-tool", text=_CITY_LINES, finish=TOOLS, channel=CALL, usage=(131, 128, 33)),
]
WHOLE = [
    Capture(name="10-completions-plain", text=" Paris.\n\nThe answer", usage=(5, 0, 6)),
    Capture(name="13-completions-logprobs", text=" Paris.\n\nThe answer", usage=(5, 0, 6)),
    Capture(name="15-completions-return_token_ids", text=" Paris.\n\nThe answer", usage=(5, 0, 6), ids=tuple(PARIS)),
    Capture(name="18-completions-n2", text=" Paris, the capital", others=(" Monaco, which",), usage=(5, 0, 8)),
    Capture(
        name="19-completions-stop",
        text=" Paris.",
        finish=FinishReason.STOP_SEQUENCE,
        matched="\n",
        usage=(5, 0, 3),
    ),
    Capture(
        name="19c-completions-stop_token_ids",
        text=" Paris.",
        finish=FinishReason.STOP_SEQUENCE,
        matched=30,
        usage=(5, 0, 2),
    ),
    Capture(name="21-completions-prompt-ids", text=" Paris.\n\nThe answer", usage=(5, 0, 6), ids=tuple(PARIS)),
    Capture(name="23-completions-beam", text=" Paris.\n\n", others=(" Paris.\n-",), usage=(5, None, 8)),
    Capture(name="24-completions-prompt_logprobs", text=" Paris", usage=(5, 0, 1)),
    Capture(name="28-completions-return_tokens_as_token_ids", text=" Paris.", usage=(5, 0, 2)),
    Capture(name="40-chat-plain", text="The capital of France is Paris.", finish=STOP, usage=(37, 0, 8)),
    Capture(name="43-chat-logprobs", text="The capital", usage=(37, 0, 2)),
    Capture(
        name="44-chat-return_token_ids",
        text="The capital of France",
        usage=(37, 0, 4),
        ids=(504, 3575, 282, 4649),
    ),
    Capture(
        name="46-chat-stop",
        text="The capital of France is ",
        finish=FinishReason.STOP_SEQUENCE,
        matched="Paris",
        usage=(37, 0, 6),
    ),
    Capture(name="50c-tools-required-strict", text=_CITY, finish=TOOLS, channel=CALL, usage=(132, 0, 33)),
    Capture(name="51c-tools-named-strict", text=_CITY, finish=TOOLS, channel=CALL, usage=(132, 128, 33)),
    Capture(name="53-tools-none", text=_AUTO, usage=(128, 0, 10)),
    Capture(name="54-tools-auto-forced-hermes-regex", text=_CITY, finish=TOOLS, channel=CALL, usage=(128, 0, 30)),
    Capture(name="55-tools-result-turn", text='<tool_call>{"arguments": {"city', usage=(172, 128, 10)),
    Capture(name="60-json_schema", text=_SANTELME, finish=STOP, usage=(37, 0, 22)),
    Capture(name="61-json_object", text=_OBJECT, usage=(37, 0, 40)),
    Capture(name="62-so-regex", text="LAS-3111", finish=STOP, usage=(37, 0, 8)),
    Capture(name="63-so-choice", text="London", finish=STOP, usage=(37, 0, 5)),
    Capture(name="64-so-grammar", text="no", finish=STOP, usage=(37, 0, 3)),
    Capture(name="65-so-json", text=_SANTELME, finish=STOP, usage=(37, 0, 22)),
    Capture(name="66-so-structural_tag-rf", text="hello", finish=STOP, usage=(37, 0, 4)),
    Capture(name="68-completions-so-choice", text="red", finish=STOP, usage=(2, 0, 3)),
    Capture(name="whole-beam", text=" Paris.\n\n", usage=(5, None, 12), ids=(7042, 30, 198, 198)),
    Capture(name="whole-prompt-logprobs", text=" Paris.", usage=(5, 0, 2), ids=(7042, 30)),
    Capture(name="whole-chat-prompt-logprobs", text="I'm", usage=(32, 0, 2), ids=(57, 5248)),
    Capture(name="whole-chat-tool", text=_CITY, finish=TOOLS, channel=CALL, usage=(131, 0, 33)),
]
EVERY_STREAM = pytest.mark.parametrize("capture", STREAMS, ids=[capture.name for capture in STREAMS])


def _replayed(capture: Capture, chunks: list[bytes]) -> Told:
    return replay(chunks, capture.choices, stop_token_ids=OWN_STOP_TOKENS)


@EVERY_STREAM
def test_a_stream_tells_what_it_says(capture: Capture) -> None:
    capture.check(_replayed(capture, [capture.body]))


@EVERY_STREAM
def test_a_stream_tells_the_same_byte_by_byte(capture: Capture) -> None:
    body = capture.body
    assert _replayed(capture, cuts(body, range(len(body)))) == _replayed(capture, [body])


@settings(deadline=None)
@given(capture=st.sampled_from(STREAMS), places=st.lists(st.integers(0, 12_000), max_size=30))
def test_a_stream_tells_the_same_however_its_bytes_are_cut(capture: Capture, places: list[int]) -> None:
    capture.check(_replayed(capture, cuts(capture.body, places)))


@EVERY_STREAM
def test_a_stream_that_ends_early_is_a_failure_at_every_event(capture: Capture) -> None:
    events = captures.events(capture.body)
    for count in range(len(events)):
        told = _replayed(capture, events[:count])
        assert (told.failure, told.totals) == ("ENGINE_LOST", None)


@pytest.mark.parametrize("capture", WHOLE, ids=[capture.name for capture in WHOLE])
def test_a_whole_answer_tells_what_it_says(capture: Capture) -> None:
    told, batch = Told(), list[Generated]()
    Answer(capture.choices, stop_token_ids=OWN_STOP_TOKENS).read_whole(capture.body, batch)
    told.add(batch)
    capture.check(told)


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("50b-tools-required-stream", '[{"city": "Paris"}, {"country": "France"}'),
        ("51b-tools-named-stream", '[{"city": "Paris"}, {"country": "France"}'),
    ],
)
def test_tools_that_are_not_strict_end_at_the_limit(name: str, beginning: str) -> None:
    told = replay([captures.body("vllm", f"{name}.resp")])
    assert told.texts[CALL].startswith(beginning)
    assert told.ends == [ChoiceDone(choice=0, finish_reason=LENGTH)]


def test_a_model_that_calls_no_tool_answers_in_text() -> None:
    told = replay([captures.body("vllm", "52b-tools-auto-stream.resp")])
    assert told.texts[TEXT].startswith(_AUTO)
    assert not told.heads


def test_an_aborted_stream_is_a_failure_and_keeps_its_text_and_its_tokens() -> None:
    told = replay([captures.body("vllm", "sent-aborted.resp")])
    assert (told.failure, told.ends, told.totals) == ("ENGINE_ABORTED", [], None)
    assert told.texts[TEXT].startswith(" Paris.\n\nThe answer is: 2018-01-")
    assert told.counts == {TEXT: len(told.ids[TEXT])} == {TEXT: 17}


def test_a_grammar_that_is_none_is_an_error_under_a_200() -> None:
    assert replay([captures.body("vllm", "sent-bad-grammar.resp")]) == Told(failure="ENGINE_REFUSED")


def test_an_error_in_the_place_of_a_whole_answer_is_one() -> None:
    with pytest.raises(EngineError) as caught:
        Answer(1).read_whole(captures.body("vllm", "69c-so-bad-grammar.resp"), [])
    assert caught.value.reason == "ENGINE_FAILED"
