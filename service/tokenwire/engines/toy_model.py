"""A model that is a pure function: what comes next depends on the bytes before it and the choice alone, for tests.

An answer that is broken off anywhere and gone on with by tokens or by text is byte for byte the unbroken one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, Prompt, PromptRead, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Token
from tokenwire.engines.scripted import Cut, Emit, Pause, ScriptedEngine, Step

_WORDS = (
    *(f" {word}" for word in ("the", "river", "keeps", "its", "own", "slow", "time", "and", "carries", "small")),
    *(f" {word}" for word in ("bright", "stones", "past", "sleeping", "mills")),
    " na\u00efve",
    " caf\u00e9",
    " \u65e5\u672c",
    *",.\n",
)
# Written a byte a token.
_CHARACTERS = ("\u00e9", "\u20ac", "\u65e5", "\U0001f600")
_FIRST_WORD = 256


@dataclass(frozen=True, kw_only=True)
class ToyModel:
    """A model, its tokenizer and its ways.

    Args:
        shift: is added to the ids of words: another number is another vocabulary.
        ends: one in so many tokens ends the answer; 0: none does.
        holds_back: whether tokens are told before their text, as many characters as the longest stop string may need;
            else tokens without text wait for it.
        seconds: between two tokens.
    """

    shift: int = 0
    ends: int = 0
    holds_back: bool = False
    seconds: float = 0.0

    def engine(self, name: str, *, die_after: Sequence[int | None] = (), **options: object) -> ScriptedEngine:
        """Returns an engine with this model.

        Args:
            name: its name.
            die_after: for each of its jobs in turn, after how many tokens its stream is cut; None: not at all.
            options: those of ScriptedEngine.
        """
        deaths = list(die_after)

        def script(job: Job) -> Sequence[Step]:
            death = deaths.pop(0) if deaths else None
            return self.steps(job, death)

        engine = ScriptedEngine(name, script=script, fields=FIELDS, **options)  # type: ignore[arg-type]
        engine.tokenizer = ToyTokenizer(self)
        return engine

    def steps(self, job: Job, death: int | None = None) -> list[Step]:
        """Returns the steps that write a job's answer, up to the engine's death after so many tokens of each choice."""
        submission, ids = job.submission, job.prompt.token_ids
        before = self.text_of(ids) if ids else (job.prompt.text or "").encode()
        n = submission.n
        # A choice that is gone on with alone is named in the job's id.
        _, _, alone = job.run_id.rpartition("-")
        numbers = range(n) if n > 1 else [int(alone) if alone.isdecimal() else 0]
        choices = [_Writing(self, submission, place, number, before) for place, number in enumerate(numbers)]
        steps: list[Step] = [Emit((PromptRead(prompt_tokens=len(ids), cached_tokens=0, token_ids=ids),))]
        number = 0
        while not all(choice.done for choice in choices):
            if number == death:
                return [*steps, Cut()]
            number += 1
            told = [item for choice in choices if not choice.done for item in choice.next()]
            if self.seconds:
                steps.append(Pause(self.seconds))
            steps.append(Emit(tuple(told)))
        if number == death:
            # It dies with its last token told, and nothing said of the end.
            last = steps.pop()
            assert isinstance(last, Emit)
            return [*steps, Emit(tuple(one for one in last.batch if isinstance(one, Piece))), Cut()]
        totals = Totals(prompt_tokens=len(ids), cached_tokens=0, output_tokens=sum(one.tokens for one in choices))
        return [*steps, Emit((totals,))]

    def next_id(self, before: bytes, choice: int) -> int | None:
        """Returns the next token of a choice after some bytes, or None for the end."""
        for character in _CHARACTERS:
            encoded = character.encode()
            for length in range(len(encoded) - 1, 0, -1):
                if before.endswith(encoded[:length]):
                    return encoded[length]
        digest = hashlib.blake2b(before[-64:] + len(before).to_bytes(4) + bytes([choice]), digest_size=8).digest()
        chance = int.from_bytes(digest)
        if self.ends and chance % self.ends == 0:
            return None
        chance //= 1009
        if chance % 5 == 0:
            return _CHARACTERS[chance // 5 % len(_CHARACTERS)].encode()[0]
        return _FIRST_WORD + self.shift + chance // 5 % len(_WORDS)

    def text_of(self, token_ids: Sequence[int]) -> bytes:
        """Returns the bytes of tokens."""
        return b"".join(
            bytes([one]) if one < _FIRST_WORD else _WORDS[one - _FIRST_WORD - self.shift].encode() for one in token_ids
        )

    def ids_of(self, text: str) -> tuple[int, ...]:
        """Returns a text's tokens: the longest word that fits, else a byte."""
        words = {word: _FIRST_WORD + self.shift + place for place, word in enumerate(_WORDS)}
        ids: list[int] = []
        while text:
            word = max((word for word in words if text.startswith(word)), key=len, default="")
            ids += [words[word]] if word else text[0].encode()
            text = text[len(word) or 1 :]
        return tuple(ids)


class ToyTokenizer:
    """The tokenizer of a toy model."""

    def __init__(self, model: ToyModel) -> None:
        self._model = model

    async def prompt(self, submission: Submission) -> Prompt:
        """Returns a request's prompt."""
        text = submission.prompt
        if text is None:
            text = "".join(f"<{message.role}>{message.content}\n" for message in submission.messages) + "<assistant>"
        ids = self._model.ids_of(text)
        return Prompt(text=text, token_ids=ids, tokens=len(ids))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a text."""
        return tuple(
            Token(one, self._model.text_of((one,)).decode("utf-8", "ignore")) for one in self._model.ids_of(text)
        )

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a part of an answer."""
        return self._model.ids_of(text)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens."""
        return self._model.text_of(token_ids).decode("utf-8", "replace")


class _Writing:
    """One choice while it is written, with stop strings as an engine has them: of the tokens it writes itself."""

    def __init__(self, model: ToyModel, submission: Submission, choice: int, number: int, before: bytes) -> None:
        stopping = submission.stopping
        self.done = False
        self.tokens = 0
        self._model = model
        self._before = before
        self._choice = choice
        self._number = number
        self._stopping = stopping
        self._logprobs = submission.output.logprobs is not None
        self._held_back = max((len(stop) for stop in stopping.stop), default=1) - 1
        self._written = b""
        self._told = 0

    def next(self) -> list[Generated]:
        token = self._model.next_id(self._before, self._number)
        enough = self.tokens >= (self._stopping.min_tokens or 0)
        if token is None and enough and not self._stopping.ignore_eos:
            return self._end(FinishReason.STOP)
        if token is None:
            token = _FIRST_WORD + self._model.shift
        self.tokens += 1
        data = self._model.text_of((token,))
        self._before += data
        self._written += data
        text = self._written.decode("utf-8", "ignore")
        if self.tokens >= (self._stopping.min_tokens or 0):
            found = [(text.find(stop) + len(stop), stop) for stop in self._stopping.stop if stop in text[self._from :]]
            if found:
                _, stop = min(found)
                start = text.find(stop, self._from)
                end = start + (len(stop) if self._stopping.include_stop else 0)
                return [self._piece(text[self._told : end], token), *self._end(FinishReason.STOP_SEQUENCE, stop, end)]
        else:
            self._passed = len(text)
        if self.tokens >= (self._stopping.max_tokens or 1 << 30):
            return [self._piece(text[self._told :], token), *self._end(FinishReason.LENGTH, None, len(text))]
        until = max(self._told, len(text) - self._held(text))
        piece = self._piece(text[self._told : until], token)
        self._told = until
        return [piece]

    _passed = 0

    @property
    def _from(self) -> int:
        # A stop string must end in text that came when there was enough of it.
        return max(0, self._passed - self._held_back)

    def _held(self, text: str) -> int:
        if self._model.holds_back:
            return self._held_back
        stops = self._stopping.stop
        return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)

    def _piece(self, text: str, token: int) -> Piece:
        told = (TokenLogprob(token_id=token, token="", logprob=-float(token)),) if self._logprobs else ()
        return Piece(channel=Channel(self._choice), text=text, token_ids=(token,), token_count=1, logprobs=told)

    def _end(self, reason: FinishReason, stop: str | None = None, end: int | None = None) -> list[Generated]:
        self.done = True
        text = self._written.decode("utf-8", "ignore")
        rest = text[self._told :] if end is None else ""
        told: list[Generated] = [Piece(channel=Channel(self._choice), text=rest, token_count=0)] if rest else []
        return [*told, ChoiceDone(choice=self._choice, finish_reason=reason, matched_stop=stop)]


FIELDS = (
    "prompt",
    "prompt_ids",
    "messages.role=SYSTEM",
    "messages.role=USER",
    "messages.role=ASSISTANT",
    "messages.content",
    "sampling.n",
    "sampling.seed",
    "sampling.temperature",
    "sampling.repetition_penalty",
    "sampling.presence_penalty",
    "sampling.frequency_penalty",
    "stopping.max_tokens",
    "stopping.min_tokens",
    "stopping.stop",
    "stopping.include_stop",
    "stopping.ignore_eos",
    "output.logprobs.top_n",
    "output.echo",
    "constraint.regex",
    "tools.name",
    "reasoning.effort=HIGH",
    "sampling.beam_search.width",
)
