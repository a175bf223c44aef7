"""From the events of one stream to what domain/generation.py says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import ChoiceDone, Generated, Piece, PromptRead, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import garbled, in_stream
from tokenwire.engines.llamacpp.wire import Chosen, Event, decode_event


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

    Args:
        submission: what was asked for.
        max_tokens: the limit that was sent.
        vocabulary: asked where the stream leaves something open.

    Attributes:
        done: whether every choice has ended.
    """

    def __init__(self, submission: Submission, max_tokens: int, vocabulary: Vocabulary) -> None:
        logprobs = submission.output.logprobs
        self.done = False
        self._max_tokens = max_tokens
        self._stops = submission.stopping.stop
        self._top_n = (logprobs.top_n or 0) if logprobs is not None else None
        self._vocabulary = vocabulary
        self._choices = [_Choice() for _ in range(submission.n)]
        self._cached: int | None = None

    async def read(self, payloads: Sequence[bytes], batch: list[Generated]) -> None:
        """Adds to `batch` what the payloads say; what came before a bad one has been added when this raises."""
        for payload in payloads:
            event = decode_event(payload)
            if event.error is not None:
                raise in_stream(event.error)
            if not 0 <= event.index < len(self._choices) or self._choices[event.index].ended:
                raise garbled()
            progress = event.prompt_progress
            if progress is not None:
                if progress.processed >= progress.total:
                    self._tell_prompt(event, progress.cache, batch)
                continue
            self._tell_prompt(event, event.timings.cache_n if event.timings else 0, batch)
            choice = self._choices[event.index]
            fresh = event.tokens_predicted - choice.tokens
            if fresh < 0:
                raise garbled()
            choice.tokens = event.tokens_predicted
            if event.stop:
                await self._end(event, choice, fresh, batch)
            else:
                batch.append(await self._piece(event, choice, fresh))

    def _tell_prompt(self, event: Event, cached: int, batch: list[Generated]) -> None:
        # Each choice tells it; all share one prompt.
        if self._cached is None:
            self._cached = cached
            batch.append(PromptRead(prompt_tokens=event.tokens_evaluated, cached_tokens=cached))

    async def _piece(self, event: Event, choice: "_Choice", fresh: int) -> Piece:
        ids: Sequence[int] = event.tokens
        if len(ids) != fresh:
            ids = await self._missing(event, choice, fresh)
        if event.content:
            choice.held.clear()
            choice.held_known = True
        else:
            choice.held.extend(ids)
            choice.held_known &= len(ids) == fresh
        logprobs: tuple[TokenLogprob, ...] = ()
        if event.completion_probabilities and self._top_n is not None:
            logprobs = tuple([await self._logprob(one, self._top_n) for one in event.completion_probabilities])
        return Piece(
            channel=Channel(event.index), text=event.content, token_ids=ids, token_count=fresh, logprobs=logprobs
        )

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

    async def _logprob(self, chosen: Chosen, top_n: int) -> TokenLogprob:
        top = chosen.top_logprobs
        name = next((one.token for one in top if one.id == chosen.id), None)
        return TokenLogprob(
            token_id=chosen.id,
            token=await self._vocabulary.name(chosen.id) if name is None else name,
            logprob=chosen.logprob,
            top=tuple(TokenLogprob(token_id=one.id, token=one.token, logprob=one.logprob) for one in top[:top_n]),
        )

    async def _end(self, event: Event, choice: "_Choice", fresh: int, batch: list[Generated]) -> None:
        reason = self._reason(event)
        tail = await self._tail(choice) if event.stop_type == "limit" else ""
        if tail or fresh:
            # Tokens that are new here are the first bytes of a character that the limit has cut off.
            batch.append(Piece(channel=Channel(event.index), text=tail, token_count=fresh))
        matched = event.stopping_word if reason is FinishReason.STOP_SEQUENCE else None
        batch.append(ChoiceDone(choice=event.index, finish_reason=reason, matched_stop=matched))
        choice.ended = True
        if all(one.ended for one in self._choices):
            self.done = True
            batch.append(
                Totals(
                    prompt_tokens=event.tokens_evaluated,
                    cached_tokens=self._cached,
                    output_tokens=sum(one.tokens for one in self._choices),
                )
            )

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
        if not self._stops or not choice.held or not choice.held_known:
            return ""
        text = await self._vocabulary.detokenize(choice.held)
        # Special tokens have no text in a stream but have one here; they begin no stop string.
        begins = any(text.endswith(stop[:length]) for stop in self._stops for length in range(1, len(stop)))
        return text if begins else ""


@dataclass(slots=True)
class _Choice:
    """How far a choice is: its tokens, and those of them since the last text."""

    tokens: int = 0
    held: list[int] = field(default_factory=list)
    held_known: bool = True
    ended: bool = False
