"""Writes what an engine tells into a run's journal."""

from collections.abc import Callable, Sequence

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import (
    ChoiceEnd,
    FinishReason,
    PromptTokens,
    TokenLogprob,
    ToolCallHead,
    TrailingTokens,
    Usage,
    UsageUpdate,
)
from tokenwire.domain.generation import (
    CallHead,
    ChoiceDone,
    Generated,
    Piece,
    PrefillProgress,
    PromptLogprobs,
    PromptRead,
    Totals,
)
from tokenwire.engines.failure import garbled
from tokenwire.journal.log import RunLog, entries

# Log probabilities in one event; a message may be 4 MiB, and one takes some 25 bytes.
EVENT_LOGPROBS = 16_384
# Endings that the model brought about; a choice without any text has its prompt all the same, if that was asked for.
_ANSWERED = (
    FinishReason.STOP,
    FinishReason.LENGTH,
    FinishReason.CONTEXT_LENGTH,
    FinishReason.STOP_SEQUENCE,
    FinishReason.TOOL_CALLS,
    FinishReason.CONTENT_FILTER,
)


class _Held:
    """Tokens without text, until their channel's next text."""

    __slots__ = ("count", "ids", "logprobs")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.count = 0
        self.logprobs: tuple[TokenLogprob, ...] = ()


class Writer:
    """The one writer of a run: engine output in, canonical events out.

    Args:
        log: the run's journal.
        elapsed_ms: milliseconds since the run's `start`.
        choices: how many choices the run has.
        max_tokens: tokens a choice may have; an engine that writes more is cut there.
        echo: the prompt, if each choice's text begins with it; no token of the answer.

    Attributes:
        window: tokens of prompt and answer together, where that is known of the engine that writes.
        prefill: how far the engine is in reading the prompt, until it has read it.
    """

    def __init__(
        self, log: RunLog, elapsed_ms: Callable[[], int], choices: int, max_tokens: int | None, echo: str = ""
    ) -> None:
        self.log = log
        self.window: int | None = None
        self.prefill: PrefillProgress | None = None
        self._echo = dict.fromkeys(range(choices), echo) if echo else {}
        self._cut: set[int] = set()
        self._choices = choices
        self._max_tokens = max_tokens
        self._written: dict[int, int] = {}
        self.ends: dict[int, ChoiceEnd] = {}
        self.prompt = PromptRead(prompt_tokens=0, cached_tokens=0)
        self.totals = Totals()
        self.wrote_text = False
        self._elapsed_ms = elapsed_ms
        self._held: dict[Channel, _Held] = {}

    def write(self, batch: Sequence[Generated], attempt: int) -> None:
        """Appends one read of an engine, then wakes the readers once."""
        now = self._elapsed_ms()
        for item in batch:
            if type(item) is Piece:
                self._piece(item, now)
            elif isinstance(item, CallHead):
                if self._takes(item.channel.choice):
                    self.log.append(ToolCallHead(channel=item.channel, id=item.id, name=item.name), now)
            elif isinstance(item, PrefillProgress):
                self.prefill = item
            elif isinstance(item, PromptLogprobs):
                self._prompt_logprobs(item.logprobs, now)
            elif isinstance(item, PromptRead):
                self.prompt, self.prefill = item, None
                self.log.append(UsageUpdate(attempt=attempt, usage=self.usage()), now)
            elif isinstance(item, ChoiceDone):
                if item.choice >= self._choices:
                    raise garbled()
                self.finish(item.choice, item.finish_reason, item.matched_stop)
            elif isinstance(item, Totals):
                self.totals = item
        self.log.wake()

    def finish(self, choice: int, reason: FinishReason, matched_stop: str | int | None = None) -> None:
        """Notes how a choice ended. What it says of a choice first, counts."""
        if choice in self.ends:
            return
        if reason is FinishReason.LENGTH and self._window_full(choice):
            reason = FinishReason.CONTEXT_LENGTH
        if choice in self._echo and reason in _ANSWERED:
            self.log.append_text(Channel(choice), self._echo.pop(choice), self._elapsed_ms())
            self.wrote_text = True
        trailing = tuple(
            TrailingTokens(
                channel=channel,
                token_ids=tuple(held.ids) if len(held.ids) == held.count else (),
                logprobs=held.logprobs,
            )
            for channel, held in sorted(self._held.items())
            if channel.choice == choice and held.count
        )
        self.ends[choice] = ChoiceEnd(choice=choice, finish_reason=reason, matched_stop=matched_stop, trailing=trailing)

    def usage(self) -> Usage:
        """Returns the counts so far: the engine's own where it told them, else what was written."""
        totals, prompt = self.totals, self.prompt
        written = sum(log.tokens[-1] for log in self.log.channels) + sum(held.count for held in self._held.values())
        output = written if totals.output_tokens is None else totals.output_tokens
        return Usage(
            prompt_tokens=prompt.prompt_tokens if totals.prompt_tokens is None else totals.prompt_tokens,
            cached_tokens=prompt.cached_tokens if totals.cached_tokens is None else totals.cached_tokens,
            output_tokens=output,
            reasoning_tokens=totals.reasoning_tokens or 0,
        )

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return len(self.ends) == self._choices

    @property
    def overrun(self) -> bool:
        """Whether a choice was cut because the engine wrote more than was asked for."""
        return bool(self._cut)

    def _takes(self, choice: int) -> bool:
        """Whether a choice goes on, or was cut. Raises if the engine had ended it, or it is none of the run's."""
        if choice in self._cut:
            return False
        if choice in self.ends or choice >= self._choices:
            raise garbled()
        return True

    def _piece(self, piece: Piece, now: int) -> None:
        choice = piece.channel.choice
        if not self._takes(choice):
            return
        ids: Sequence[int] = piece.token_ids
        count = len(ids) if piece.token_count is None else piece.token_count
        if self._max_tokens is not None:
            written = self._written[choice] = self._written.get(choice, 0) + count
            if written > self._max_tokens:
                self._cut.add(choice)
                self.finish(choice, FinishReason.LENGTH)
                return
        logprobs = piece.logprobs
        held = self._held.get(piece.channel)
        if not piece.text:
            if held is None:
                held = self._held[piece.channel] = _Held()
            held.ids.extend(ids)
            held.count += count
            held.logprobs += logprobs
            return
        if held is not None:
            ids, count, logprobs = [*held.ids, *ids], held.count + count, held.logprobs + logprobs
            del self._held[piece.channel]
        text = piece.text
        if self._echo and piece.channel.kind is ChannelKind.TEXT:
            text = self._echo.pop(choice, "") + text
        self.wrote_text = True
        self.log.append_text(piece.channel, text, now, ids, count, logprobs)

    def _prompt_logprobs(self, logprobs: Sequence[TokenLogprob], now: int) -> None:
        """Appends the prompt's log probabilities, as many to an event as a message can carry."""
        first, size = 0, 0
        for place, one in enumerate(logprobs):
            added = entries((one,))
            if size and size + added > EVENT_LOGPROBS:
                self.log.append(PromptTokens(token_offset=first, logprobs=tuple(logprobs[first:place])), now)
                first, size = place, 0
            size += added
        if size:
            self.log.append(PromptTokens(token_offset=first, logprobs=tuple(logprobs[first:])), now)

    def _window_full(self, choice: int) -> bool:
        """Whether a choice ended at its length because the window was full, before it had all it asked for."""
        written = sum(log.tokens[-1] for log in self.log.channels if log.channel.choice == choice)
        written += sum(held.count for channel, held in self._held.items() if channel.choice == choice)
        if self.window is None or not written or (self._max_tokens is not None and written >= self._max_tokens):
            return False
        return self.prompt.prompt_tokens + written >= self.window
