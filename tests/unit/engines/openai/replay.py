"""Answers as the adapters read them, without a network."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import (
    CallHead,
    ChoiceDone,
    Generated,
    Piece,
    PromptLogprobs,
    PromptRead,
    Totals,
    taken_apart,
)
from tokenwire.engines.failure import cut
from tokenwire.engines.framing import EventSplitter
from tokenwire.engines.openai.answer import Answer


@dataclass(slots=True)
class Told:
    """What an answer told: text, ids and so on by channel, and the reason of its failure if it failed."""

    texts: dict[Channel, str] = field(default_factory=dict)
    heads: list[CallHead] = field(default_factory=list)
    ends: list[ChoiceDone] = field(default_factory=list)
    totals: Totals | None = None
    failure: str | None = None
    ids: dict[Channel, list[int]] = field(default_factory=dict)
    counts: dict[Channel, int] = field(default_factory=dict)
    logprobs: dict[Channel, tuple[TokenLogprob, ...]] = field(default_factory=dict)
    prompt: PromptRead | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] = ()

    def add(self, batch: Iterable[Generated]) -> None:
        """Takes one read."""
        for item in taken_apart(list(batch)):
            match item:
                case Piece():
                    self._piece(item)
                case CallHead():
                    self.heads.append(item)
                case ChoiceDone():
                    self.ends.append(item)
                case Totals():
                    assert self.totals is None
                    self.totals = item
                case PromptRead():
                    assert self.prompt is None
                    assert not self.counts
                    self.prompt = item
                case PromptLogprobs():
                    assert not self.counts
                    self.prompt_logprobs = item.logprobs
                case _:
                    raise AssertionError(item)

    def _piece(self, piece: Piece) -> None:
        channel = piece.channel
        assert channel.choice not in {end.choice for end in self.ends}
        # A piece tells something.
        assert piece.text or piece.token_ids or piece.token_count or piece.logprobs
        if piece.text:
            self.texts[channel] = self.texts.get(channel, "") + piece.text
        if piece.token_ids:
            assert len(piece.token_ids) == piece.token_count
            self.ids.setdefault(channel, []).extend(piece.token_ids)
        if piece.token_count:
            self.counts[channel] = self.counts.get(channel, 0) + piece.token_count
        if piece.logprobs:
            self.logprobs[channel] = self.logprobs.get(channel, ()) + piece.logprobs


def replay(chunks: Iterable[bytes], choices: int = 1, **options: Any) -> Told:
    """Returns what a stream tells that comes in these reads and then ends; `options` are Answer's."""
    told = Told()
    splitter, answer = EventSplitter(), Answer(choices, **options)
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
