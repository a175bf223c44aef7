"""Real answers of vLLM's Rust front end, replayed."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Totals
from tokenwire.domain.request import Constraint, Submission
from tokenwire.engines.failure import cut
from tokenwire.engines.framing import EventSplitter
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.vllm.reader import Reader
from tokenwire.engines.vllm.server import Server
from unit.engines import captures
from unit.engines.openai.replay import Told, cuts

TEXT, CALL = Channel(), Channel(0, ChannelKind.TOOL_CALL, 0)
LENGTH, STOP, TOOLS = FinishReason.LENGTH, FinishReason.STOP, FinishReason.TOOL_CALLS
SIGN = (24211,)
RUST = Server(rust=True, tags=False, unknown_character=SIGN)
PLAIN = Submission(prompt="hi")
SCHEMA = Submission(prompt="hi", constraint=Constraint(json_schema='{"type": 5}'))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """A captured stream and what it says; `usage` is tokens of prompt and output, and of the prompt's those cached."""

    name: str
    text: str
    usage: tuple[int, int, int | None]
    finish: FinishReason = LENGTH
    matched: str | int | None = None
    last_id: int | None = None
    channel: Channel = TEXT

    @property
    def body(self) -> bytes:
        """The bytes that came."""
        return captures.body("vllm", f"rust-{self.name}.resp")

    def check(self, told: Told) -> None:
        """Compares with what was told."""
        assert told.failure is None
        assert told.texts == {self.channel: self.text}
        assert told.ends == [ChoiceDone(choice=0, finish_reason=self.finish, matched_stop=self.matched)]
        assert [head.name for head in told.heads] == (["get_weather"] if self.channel == CALL else [])
        prompt, output, cached = self.usage
        assert told.totals == Totals(
            prompt_tokens=prompt, cached_tokens=cached, output_tokens=output, reasoning_tokens=0
        )
        assert sum(told.counts.values()) == output
        assert told.prompt is not None
        assert len(told.prompt.token_ids) == prompt
        if self.last_id is not None:
            assert told.ids[self.channel][-1] == self.last_id


_CALL = '{\n    "city": "Paris"\n}'
STREAMS = [
    Capture(name="completion", text=" Paris.\n\n", usage=(5, 4, None), last_id=198),
    Capture(
        name="completion-stop-string",
        text=" 5, 6, ",
        finish=FinishReason.STOP_SEQUENCE,
        matched="7",
        usage=(11, 8, None),
        last_id=39,
    ),
    Capture(
        name="completion-stop-token",
        text=" 5, 6, ",
        finish=FinishReason.STOP_SEQUENCE,
        matched=39,
        usage=(11, 8, None),
        last_id=39,
    ),
    Capture(name="completion-logprobs", text=" Paris.", usage=(5, 2, None), last_id=30),
    # The last token is a space and the beginning of a character.
    Capture(name="completion-unfinished", text=" 世界 👩\u200d🚀 🌍 世界 ", usage=(48, 24, None), last_id=15107),
    Capture(name="completion-real-sign", text="���", usage=(1, 3, None), last_id=SIGN[0]),
    Capture(
        name="chat",
        text="Hello there! I'm here to help with any kind of math or science project. What can I help you with?",
        finish=STOP,
        usage=(33, 25, None),
        last_id=2,
    ),
    Capture(name="chat-logprobs", text="Hello there", usage=(33, 2, None), last_id=665),
    Capture(name="chat-required-tool", text=_CALL, finish=TOOLS, usage=(137, 33, None), channel=CALL),
    Capture(name="chat-named-tool", text=_CALL, finish=TOOLS, usage=(137, 33, 128), channel=CALL),
    Capture(name="choice", text="red (dark)", finish=STOP, usage=(5, 9, None), last_id=2),
]
EVERY_STREAM = pytest.mark.parametrize("capture", STREAMS, ids=[capture.name for capture in STREAMS])


def _replayed(chunks: list[bytes], submission: Submission = PLAIN, server: Server = RUST) -> Told:
    told, splitter = Told(), EventSplitter()
    reader = Reader(Answer(1, stop=("7",), stop_token_ids={39}), submission, server)
    try:
        for chunk in chunks:
            batch: list[Generated] = []
            try:
                done = reader.read(splitter.feed(chunk), batch)
            finally:
                told.add(batch)
            if done:
                return told
        raise cut()
    except EngineError as error:
        told.failure = error.reason
    return told


@EVERY_STREAM
def test_a_stream_tells_what_it_says(capture: Capture) -> None:
    capture.check(_replayed([capture.body]))


@EVERY_STREAM
def test_a_stream_tells_the_same_byte_by_byte(capture: Capture) -> None:
    body = capture.body
    assert _replayed(cuts(body, range(len(body)))) == _replayed([body])


@settings(deadline=None)
@given(capture=st.sampled_from(STREAMS), places=st.lists(st.integers(0, 8_000), max_size=30))
def test_a_stream_tells_the_same_however_its_bytes_are_cut(capture: Capture, places: list[int]) -> None:
    capture.check(_replayed(cuts(capture.body, places)))


@EVERY_STREAM
def test_a_stream_that_ends_early_is_a_failure_at_every_event(capture: Capture) -> None:
    events = captures.events(capture.body)
    for count in range(len(events)):
        told = _replayed(events[:count])
        assert (told.failure, told.totals) == ("ENGINE_LOST", None)


def test_an_aborted_stream_is_a_failure_and_keeps_its_text_and_its_tokens() -> None:
    told = _replayed([captures.body("vllm", "rust-aborted.resp")])
    assert (told.failure, told.ends, told.totals) == ("ENGINE_ABORTED", [], None)
    assert told.texts[TEXT].startswith(" Paris.")
    assert told.counts == {TEXT: 11}


@pytest.mark.parametrize("name", ["chat-tool-failed", "broken-schema-failed"])
def test_a_grammar_that_the_engine_cannot_make_is_an_error_under_a_200(name: str) -> None:
    told = _replayed([captures.body("vllm", f"rust-{name}.resp")])
    assert (told.failure, told.texts, told.counts) == ("ENGINE_FAILED", {}, {})


def test_a_constraint_that_ended_the_answer_at_once_was_none() -> None:
    body = captures.body("vllm", "rust-broken-schema.resp")
    for chunks in ([body], cuts(body, range(len(body)))):
        told = _replayed(chunks, SCHEMA)
        assert (told.failure, told.ends, told.totals, told.texts) == ("ENGINE_REFUSED", [], None, {})
    # Without a constraint, or with a library that fails instead, it is an empty answer.
    for submission, tags in ((PLAIN, False), (SCHEMA, True)):
        told = _replayed([body], submission, Server(rust=True, tags=tags))
        assert told.ends == [ChoiceDone(choice=0, finish_reason=STOP)]


def test_a_whole_answer_loses_its_unfinished_character_too() -> None:
    body = captures.body("vllm", "rust-whole-prompt-logprobs.resp").replace(b" Paris.", " Paris.�".encode())
    batch: list[Generated] = []
    Reader(Answer(1), PLAIN, RUST).read_whole(body, batch)
    told = Told()
    told.add(batch)
    assert (told.texts, told.ids) == ({TEXT: " Paris."}, {TEXT: [7042, 30]})
