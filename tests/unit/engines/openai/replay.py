"""Captured streams as the adapter reads them, without a network."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Piece, Totals
from tokenwire.engines.failure import cut
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.sse import EventSplitter


@dataclass(slots=True)
class Told:
    """What a stream told: text by channel, heads, ends, counts, and the reason of its failure if it failed."""

    texts: dict[Channel, str] = field(default_factory=dict)
    heads: list[CallHead] = field(default_factory=list)
    ends: list[ChoiceDone] = field(default_factory=list)
    totals: Totals | None = None
    failure: str | None = None

    def add(self, batch: Iterable[Generated]) -> None:
        """Takes one read."""
        for item in batch:
            match item:
                case Piece():
                    assert item.text
                    assert item.token_count is None
                    assert item.channel.choice not in {end.choice for end in self.ends}
                    self.texts[item.channel] = self.texts.get(item.channel, "") + item.text
                case CallHead():
                    self.heads.append(item)
                case ChoiceDone():
                    self.ends.append(item)
                case Totals():
                    assert self.totals is None
                    self.totals = item
                case _:
                    raise AssertionError(item)


def replay(chunks: Iterable[bytes], choices: int = 1) -> Told:
    """Returns what a stream tells that comes in these reads and then ends."""
    told = Told()
    splitter, answer = EventSplitter(), Answer(choices)
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
        told.failure = error.reason
        return told


def cuts(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Returns the body cut at these places, as far as they lie in it."""
    ends = [*sorted({place for place in places if 0 < place < len(body)}), len(body)]
    return [body[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
