"""From the events of one stream to what domain/generation.py says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, PrefillProgress, PromptRead, Totals
from tokenwire.engines.failure import garbled, in_stream
from tokenwire.engines.llamacpp.channels import Channels, Layout
from tokenwire.engines.llamacpp.logprobs import LogprobReader
from tokenwire.engines.llamacpp.wire import Event, decode_event


class Vocabulary(Protocol):
    """What the model's tokens are, asked of the engine where a stream leaves it open."""

    async def ids(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a part of an answer."""
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens."""
        ...

    async def name(self, token_id: int) -> str:
        """Returns the text of one token."""
        ...


class Answer:
    """Reads the stream of one job, all its choices.

    A stop token is llama.cpp's to write and ours to see: its choice ends there for everybody but llama.cpp, which goes
    on until the stream is closed.

    Args:
        job: what was asked for.
        max_tokens: the limit that was sent.
        vocabulary: asked where the stream leaves something open.
        layout: what the text may hold beside the answer.

    Attributes:
        done: whether every choice has ended.
    """

    def __init__(self, job: Job, max_tokens: int, vocabulary: Vocabulary, layout: Layout) -> None:
        submission = job.submission
        asked = submission.output.logprobs
        self.done = False
        self._prompt_ids = job.prompt.token_ids
        self._max_tokens = max_tokens
        self._stopping = submission.stopping
        self._stop_ids = frozenset(submission.stopping.stop_token_ids)
        self._logprobs = LogprobReader(asked, vocabulary.name) if asked is not None else None
        self._vocabulary = vocabulary
        self._choices = [_Choice(Channels(index, layout)) for index in range(submission.n)]
        self._cached: int | None = None

    async def read(self, payloads: Sequence[bytes], batch: list[Generated]) -> None:
        """Adds to `batch` what the payloads say; what came before a bad one has been added when this raises."""
        for payload in payloads:
            event = decode_event(payload)
            if event.error is not None:
                raise in_stream(event.error)
            if not 0 <= event.index < len(self._choices):
                raise garbled()
            choice = self._choices[event.index]
            if choice.stopped:
                continue
            if choice.ended:
                raise garbled()
            progress = event.prompt_progress
            if progress is not None and progress.processed < progress.total:
                self._tell_progress(progress.total, progress.cache, progress.processed, batch)
                continue
            self._tell_prompt(event, batch)
            if progress is not None:
                continue
            fresh = event.tokens_predicted - choice.tokens
            if fresh < 0:
                raise garbled()
            choice.tokens = event.tokens_predicted
            if event.stop:
                await self._end(event, choice, fresh, batch)
            else:
                await self._piece(event, choice, fresh, batch)
            if choice.ended and all(one.ended for one in self._choices):
                self.done = True
                batch.append(self._totals(event))

    def _tell_progress(self, total: int, cached: int, done: int, batch: list[Generated]) -> None:
        if self._cached is None:
            batch.append(PrefillProgress(prompt_tokens=total, cached_tokens=cached, done_tokens=done))

    def _tell_prompt(self, event: Event, batch: list[Generated]) -> None:
        # Each choice tells it; all share one prompt.
        if self._cached is not None:
            return
        progress, timings = event.prompt_progress, event.timings
        self._cached = progress.cache if progress is not None else timings.cache_n if timings is not None else 0
        batch.append(
            PromptRead(prompt_tokens=event.tokens_evaluated, cached_tokens=self._cached, token_ids=self._prompt_ids)
        )

    def _totals(self, event: Event) -> Totals:
        thoughts = sum(one.channels.reasoning_tokens for one in self._choices)
        return Totals(
            prompt_tokens=event.tokens_evaluated,
            cached_tokens=self._cached,
            output_tokens=sum(one.tokens for one in self._choices),
            reasoning_tokens=thoughts or None,
        )

    async def _piece(self, event: Event, choice: "_Choice", fresh: int, batch: list[Generated]) -> None:
        ids: Sequence[int] = event.tokens
        if len(ids) != fresh:
            ids = await self._missing(event, choice, fresh)
        logprobs: tuple[TokenLogprob, ...] = ()
        if event.completion_probabilities and self._logprobs is not None:
            logprobs = await self._logprobs.read(event.completion_probabilities)
        piece = Piece(
            channel=Channel(event.index), text=event.content, token_ids=ids, token_count=fresh, logprobs=logprobs
        )
        if self._stop_ids:
            stop = next((one for one in (*ids, *event.tokens) if one in self._stop_ids), None)
            if stop is not None:
                piece.text = await self._before(event.content, stop, choice)
                choice.stopped = True
                self._close(event.index, choice, piece, FinishReason.STOP_SEQUENCE, stop, batch)
                return
        if event.content:
            choice.held.clear()
            choice.held_known = True
        else:
            choice.held.extend(ids)
            choice.held_known &= len(ids) == fresh
        choice.channels.put(piece, batch)

    async def _before(self, content: str, stop: int, choice: "_Choice") -> str:
        """Returns the text before a stop token, which came with it."""
        if not content:
            return await self._tail(choice)
        name = await self._vocabulary.name(stop)
        if content.endswith(name):
            return content.removesuffix(name)
        # A part of a character, which is whole with it. A special token has no text in a stream.
        return content[:-1] if "\N{REPLACEMENT CHARACTER}" in name else content

    async def _missing(self, event: Event, choice: "_Choice", fresh: int) -> Sequence[int]:
        """Returns the ids of tokens that make up a character together, of which the stream tells the last one alone.

        The text is read again as tokens. That is what the model wrote if all that is known agrees; else nothing is
        told.
        """
        if not event.content or not choice.held_known:
            return ()
        known = len(choice.held)
        ids = await self._vocabulary.ids(event.content)
        agrees = len(ids) == known + fresh and list(ids[:known]) == choice.held and list(ids[-1:]) == event.tokens
        return ids[known:] if agrees else ()

    async def _end(self, event: Event, choice: "_Choice", fresh: int, batch: list[Generated]) -> None:
        reason = self._reason(event)
        text, matched = "", None
        if reason is FinishReason.STOP_SEQUENCE:
            matched = event.stopping_word
            text = matched if self._stopping.include_stop else ""
        elif event.stop_type == "limit":
            text = await self._tail(choice)
        # Tokens that are new here are the first bytes of a character that the limit has cut off, or of a stop string.
        piece = Piece(channel=Channel(event.index), text=text, token_count=fresh) if text or fresh else None
        self._close(event.index, choice, piece, reason, matched, batch)

    def _close(
        self,
        index: int,
        choice: "_Choice",
        piece: Piece | None,
        reason: FinishReason,
        matched: str | int | None,
        batch: list[Generated],
    ) -> None:
        if piece is not None:
            choice.channels.put(piece, batch)
        choice.channels.end(batch)
        if reason is FinishReason.STOP and choice.channels.called:
            reason = FinishReason.TOOL_CALLS
        batch.append(ChoiceDone(choice=index, finish_reason=reason, matched_stop=matched))
        choice.ended = True

    def _reason(self, event: Event) -> FinishReason:
        if event.stop_type == "eos":
            return FinishReason.STOP
        if event.stop_type == "word":
            return FinishReason.STOP_SEQUENCE
        if event.stop_type == "limit":
            full = event.truncated and event.tokens_predicted < self._max_tokens
            return FinishReason.CONTEXT_LENGTH if full else FinishReason.LENGTH
        raise garbled()

    async def _tail(self, choice: "_Choice") -> str:
        """Returns the text that llama.cpp held back as the beginning of a stop string, and loses at a limit."""
        stops = self._stopping.stop
        if not stops or not choice.held or not choice.held_known:
            return ""
        text = await self._vocabulary.detokenize(choice.held)
        # Special tokens have no text in a stream but have one here; they begin no stop string.
        begins = any(text.endswith(stop[:length]) for stop in stops for length in range(1, len(stop)))
        return text if begins else ""


@dataclass(slots=True)
class _Choice:
    """How far a choice is: its tokens, and those of them since the last text.

    `stopped`: it has ended at a stop token, and llama.cpp does not know.
    """

    channels: Channels
    tokens: int = 0
    held: list[int] = field(default_factory=list)
    held_known: bool = True
    ended: bool = False
    stopped: bool = False
