"""Captured streams as the adapter reads them, without a network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import ChoiceDone, Generated, Piece, PromptLogprobs, PromptRead, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import cut
from tokenwire.engines.framing import EventSplitter
from tokenwire.engines.sglang.answer import Answer
from tokenwire.engines.sglang.server import Server
from unit.engines import captures

# The ids of U+FFFD in the captures' vocabulary.
SERVER = Server(tokenizes=True, vocabulary=49_152, unknown_character=(24_211,))


@dataclass(slots=True)
class Told:
    """What a stream told, by choice, and the reason of its failure if it failed."""

    texts: dict[int, str] = field(default_factory=dict)
    ids: dict[int, list[int]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    prompt: PromptRead | None = None
    ends: list[ChoiceDone] = field(default_factory=list)
    totals: Totals | None = None
    failure: EngineError | None = None

    def add(self, batch: Iterable[Generated]) -> None:
        """Takes one read."""
        for item in batch:
            match item:
                case Piece():
                    choice = item.channel.choice
                    assert choice not in {end.choice for end in self.ends}
                    assert item.token_count is not None
                    self.texts[choice] = self.texts.get(choice, "") + item.text
                    self.ids.setdefault(choice, []).extend(item.token_ids)
                    self.counts[choice] = self.counts.get(choice, 0) + item.token_count
                    self.logprobs.setdefault(choice, []).extend(item.logprobs)
                case PromptRead():
                    assert self.prompt is None
                    self.prompt = item
                case PromptLogprobs():
                    assert not self.prompt_logprobs
                    self.prompt_logprobs = item.logprobs
                case ChoiceDone():
                    self.ends.append(item)
                case Totals():
                    assert self.totals is None
                    self.totals = item
                case _:
                    raise AssertionError(item)


def replay(
    chunks: Iterable[bytes],
    submission: Submission | None = None,
    prompt_ids: Sequence[int] = (),
    server: Server = SERVER,
) -> Told:
    """Returns what a stream tells that comes in these reads and then ends."""
    told = Told()
    splitter, answer = EventSplitter(), Answer(submission or Submission(), prompt_ids, server)
    try:
        for chunk in chunks:
            batch: list[Generated] = []
            try:
                answer.read(splitter.feed(chunk), batch)
            finally:
                told.add(batch)
            if answer.done:
                return told
        raise cut()
    except EngineError as error:
        told.failure = error
        return told


def stream_of(name: str) -> bytes:
    """Returns a captured stream; a reply that came as a whole as a stream of its last event."""
    content = captures.body("sglang", name)
    return content if content.startswith(b"data:") else b"data: " + content + b"\n\ndata: [DONE]\n\n"
