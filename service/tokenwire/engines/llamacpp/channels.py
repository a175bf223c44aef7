"""From one choice's text to the channels of a run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.generation import CallHead, Generated, Piece
from tokenwire.engines.llamacpp.calls import Called, CallParser, Part, Said
from tokenwire.engines.llamacpp.thoughts import Thoughts


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a job's text may hold beside the answer.

    Attributes:
        run_id: the run, for the ids of calls.
        calls: whether there may be tool calls.
        must_call: whether there is nothing else.
        thoughts: whether there may be reasoning.
        opened: whether the prompt ends where the reasoning begins.
    """

    run_id: str = ""
    calls: bool = False
    must_call: bool = False
    thoughts: bool = False
    opened: bool = False


class Channels:
    """Puts the pieces of one choice into its channels: answer, reasoning, and one for each tool call.

    Tokens ride with the text that they complete. Tokens of tags have no text: they go to the channel that is written.

    Attributes:
        reasoning_tokens: how many tokens were put into the reasoning.
    """

    def __init__(self, choice: int, layout: Layout) -> None:
        self.reasoning_tokens = 0
        self._choice = choice
        self._run_id = layout.run_id
        self._thoughts = Thoughts(layout.opened) if layout.thoughts else None
        self._calls = CallParser(expected=layout.must_call) if layout.calls else None
        self._waiting = _Tokens()

    @property
    def called(self) -> bool:
        """Whether a whole tool call was written."""
        return self._calls is not None and self._calls.ended > 0

    def put(self, piece: Piece, batch: list[Generated]) -> None:
        """Adds to `batch` what is certain with a piece of the whole text."""
        if self._thoughts is None and self._calls is None:
            batch.append(piece)
            return
        written = self._split(piece.text) if piece.text else []
        tokens = _Tokens()
        tokens.take(piece)
        if self._holding:
            # The last byte of these tokens has still to be told; that of those before them was told, if any was.
            if written:
                self._deliver(written, batch)
            self._waiting.add(tokens)
            return
        self._waiting.add(tokens)
        self._deliver(written, batch)

    def end(self, batch: list[Generated]) -> None:
        """Adds what was held back when the choice ends."""
        written: list[Piece | CallHead] = []
        if self._thoughts is not None:
            reasoning, answer = self._thoughts.finish()
            written += self._text(ChannelKind.REASONING, reasoning)
            written += self._answer(answer)
        if self._calls is not None:
            written += self._parts(self._calls.finish())
        self._deliver(written, batch)

    @property
    def _holding(self) -> bool:
        thoughts = self._thoughts is not None and self._thoughts.holding
        return thoughts or (self._calls is not None and self._calls.holding)

    def _split(self, text: str) -> list[Piece | CallHead]:
        if self._thoughts is None:
            return self._answer(text)
        reasoning, answer = self._thoughts.feed(text)
        return self._text(ChannelKind.REASONING, reasoning) + self._answer(answer)

    def _answer(self, text: str) -> list[Piece | CallHead]:
        if not text:
            return []
        return self._text(ChannelKind.TEXT, text) if self._calls is None else self._parts(self._calls.feed(text))

    def _parts(self, parts: Sequence[Part]) -> list[Piece | CallHead]:
        written: list[Piece | CallHead] = []
        for part in parts:
            if isinstance(part, Said):
                written += self._text(ChannelKind.TEXT, part.text)
            elif isinstance(part, Called):
                channel = Channel(self._choice, ChannelKind.TOOL_CALL, part.index)
                written.append(CallHead(channel=channel, id=self._call_id(part.index), name=part.name))
            else:
                written += self._text(ChannelKind.TOOL_CALL, part.text, part.index)
        return written

    def _text(self, kind: ChannelKind, text: str, index: int = 0) -> list[Piece | CallHead]:
        # Tokens are given to one of several pieces; the others complete none.
        return [Piece(channel=Channel(self._choice, kind, index), text=text, token_count=0)] if text else []

    def _deliver(self, written: Sequence[Piece | CallHead], batch: list[Generated]) -> None:
        batch += written
        if not self._waiting.count:
            return
        last = written[-1] if written else None
        if not isinstance(last, Piece):
            last = Piece(channel=self._current if last is None else last.channel, text="")
            batch.append(last)
        self._waiting.give(last)
        if last.channel.kind is ChannelKind.REASONING:
            self.reasoning_tokens += last.token_count or 0
        self._waiting = _Tokens()

    @property
    def _current(self) -> Channel:
        if self._thoughts is not None and self._thoughts.thinking:
            return Channel(self._choice, ChannelKind.REASONING)
        if self._calls is not None and self._calls.calling:
            return Channel(self._choice, ChannelKind.TOOL_CALL, self._calls.begun - 1)
        return Channel(self._choice)

    def _call_id(self, index: int) -> str:
        digest = hashlib.sha256(f"{self._run_id} {self._choice} {index}".encode())
        return f"call_{digest.hexdigest()[:24]}"


@dataclass(slots=True)
class _Tokens:
    """Tokens that wait for their last byte."""

    ids: list[int] = field(default_factory=list)
    count: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()

    def take(self, piece: Piece) -> None:
        self.ids.extend(piece.token_ids)
        self.count += len(piece.token_ids) if piece.token_count is None else piece.token_count
        self.logprobs += piece.logprobs

    def add(self, other: "_Tokens") -> None:
        self.ids.extend(other.ids)
        self.count += other.count
        self.logprobs += other.logprobs

    def give(self, piece: Piece) -> None:
        piece.token_ids, piece.token_count, piece.logprobs = self.ids, self.count, self.logprobs
