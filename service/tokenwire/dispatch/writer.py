"""Writes what an engine tells into a run's journal."""

from collections.abc import Callable, Mapping, Sequence

from tokenwire.dispatch.tally import Tally
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import (
    ChoiceEnd,
    Dispatched,
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
    Pieces,
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
# Of these a run mostly has none, and an empty set of its own would take 200 bytes.
_NO_CHOICES: frozenset[int] = frozenset()


class _Held:
    """Tokens without text, until their channel's next text."""

    __slots__ = ("count", "ids", "logprobs")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.count = 0
        self.logprobs: tuple[TokenLogprob, ...] = ()


class Writer:
    """The one writer of a run: engine output in, canonical events out.

    What it knows of earlier attempts it reads from the log, so that another writer can be made of a log with text.

    Args:
        log: the run's journal.
        elapsed_ms: milliseconds since the run's `start`.
        choices: how many choices the run has.
        max_tokens: tokens a choice may have; an engine that writes more is cut there.
        echo: the prompt, if each choice's text begins with it; no token of the answer.

    Attributes:
        attempt: the number of the last attempt in the log as it was found.
        echo: see above; may change as long as there is no text.
        window: tokens of prompt and answer together, where that is known of the engine that writes.
        prefill: how far the engine is in reading the prompt, until it has read it.
        overrun: whether a choice was cut because the engine wrote more than was asked for.
    """

    __slots__ = (
        "_again",
        "_choices",
        "_cut",
        "_echoed",
        "_elapsed_ms",
        "_held",
        "_max_tokens",
        "_tally",
        "_written",
        "attempt",
        "echo",
        "log",
        "overrun",
        "prefill",
        "window",
    )

    def __init__(
        self, log: RunLog, elapsed_ms: Callable[[], int], choices: int, max_tokens: int | None, echo: str = ""
    ) -> None:
        self.log = log
        self.window: int | None = None
        self.prefill: PrefillProgress | None = None
        dispatched = [marked.marker for marked in log.markers if isinstance(marked.marker, Dispatched)]
        self.attempt = dispatched[-1].attempt if dispatched else 0
        self.echo = echo
        self.overrun = False
        self._cut = _NO_CHOICES
        self._choices = choices
        self._max_tokens = max_tokens
        self._elapsed_ms = elapsed_ms
        self._tally = Tally(log)
        # For each token: one look-up less.
        self._again, self._written = self._tally.again, self._tally.written
        self._held: dict[Channel, _Held] = {}
        texts = [each.channel for each in log.channels if each.channel.kind is ChannelKind.TEXT]
        self._echoed = frozenset(channel.choice for channel in texts) if texts else _NO_CHOICES

    def begin(self, again: Mapping[int, int], parts: int = 1) -> None:
        """Begins another attempt: tokens of the last one that have no text are dropped, as they are written again.

        Args:
            again: for each choice how many of the tokens that are in the log the engine writes once more.
            parts: how many answers the engine writes at once, each with its own counts.
        """
        self.prefill = None
        self._held.clear()
        self._tally.begin(again, parts)

    def write(self, batch: Sequence[Generated], attempt: int) -> None:
        """Appends one read of an engine, of the attempt with this number, then wakes the readers once."""
        now = self._elapsed_ms()
        for item in batch:
            if type(item) is Piece:
                self._piece(item, now)
            elif type(item) is Pieces:
                self._pieces(item, now)
            elif isinstance(item, CallHead):
                if self._takes(item.channel.choice):
                    self.log.add(ToolCallHead(channel=item.channel, id=item.id, name=item.name), now)
            elif isinstance(item, PrefillProgress):
                self.prefill = item
            elif isinstance(item, PromptLogprobs):
                self._prompt_logprobs(item.logprobs, now)
            elif isinstance(item, PromptRead):
                self.prefill = None
                if self._tally.read(item):
                    self.log.add(UsageUpdate(attempt=attempt, usage=self.usage()), now)
            elif isinstance(item, ChoiceDone):
                if item.choice >= self._choices:
                    raise garbled()
                self.finish(item.choice, item.finish_reason, item.matched_stop)
            elif isinstance(item, Totals):
                self._tally.told(item)
        self.log.wake()

    def finish(self, choice: int, reason: FinishReason, matched_stop: str | int | None = None) -> None:
        """Notes how a choice ended. What it says of a choice first, counts."""
        if choice in self.log.choice_ends:
            return
        if reason is FinishReason.LENGTH and self._window_full(choice):
            reason = FinishReason.CONTEXT_LENGTH
        if self.echo and choice not in self._echoed and reason in _ANSWERED:
            self._echoed |= {choice}
            self.log.append_text(Channel(choice), self.echo, self._elapsed_ms())
        held = {channel: self._held.pop(channel) for channel in sorted(self._held) if channel.choice == choice}
        self._tally.trailing += sum(one.count for one in held.values())
        trailing = tuple(
            TrailingTokens(
                channel=channel,
                token_ids=tuple(one.ids) if len(one.ids) == one.count else (),
                logprobs=one.logprobs,
            )
            for channel, one in held.items()
            if one.count
        )
        self.log.note_end(ChoiceEnd(choice=choice, finish_reason=reason, matched_stop=matched_stop, trailing=trailing))

    def usage(self) -> Usage:
        """Returns the counts so far: the engine's own where it told them, else what was written.

        The prompt counts once, as the first engine read it whose text is in the log; the output is that of all
        attempts, without tokens that were lost.
        """
        return self._tally.usage(sum(held.count for held in self._held.values()))

    @property
    def output_tokens(self) -> int:
        """The tokens that are in the log, as far as the engines told them."""
        return sum(log.tokens[-1] for log in self.log.channels) + self._tally.trailing

    @property
    def wrote_text(self) -> bool:
        """Whether there is text."""
        return bool(self.log.channels)

    @property
    def prompt(self) -> PromptRead:
        """What is known of the prompt: its tokens, cached ones, and their ids where an engine told them."""
        return self._tally.prompt

    @property
    def ends(self) -> Mapping[int, ChoiceEnd]:
        """How choices ended."""
        return self.log.choice_ends

    @property
    def open_choices(self) -> Sequence[int]:
        """The choices that have not ended."""
        return [choice for choice in range(self._choices) if choice not in self.log.choice_ends]

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return len(self.log.choice_ends) == self._choices

    def was_cut(self, choice: int) -> bool:
        """Whether that was this choice."""
        return choice in self._cut

    def _takes(self, choice: int) -> bool:
        """Whether a choice goes on, or was cut. Raises if the engine had ended it, or it is none of the run's."""
        if choice in self._cut:
            return False
        if choice in self.log.choice_ends or choice >= self._choices:
            raise garbled()
        return True

    def _piece(self, piece: Piece, now: int) -> None:
        choice = piece.channel.choice
        if (self.overrun or choice in self.log.choice_ends or choice >= self._choices) and not self._takes(choice):
            return
        ids: Sequence[int] = piece.token_ids
        count = len(ids) if piece.token_count is None else piece.token_count
        logprobs = piece.logprobs
        if self._again:
            known = self._tally.known(choice, count)
            if known:
                # The log has these tokens already.
                ids, logprobs, count = ids[known:], logprobs[known:], count - known
        if self._max_tokens is not None:
            written = self._written[choice] = self._written.get(choice, 0) + count
            if written > self._max_tokens:
                self._cut |= {choice}
                self.overrun = True
                self.finish(choice, FinishReason.LENGTH)
                return
        held = self._held.get(piece.channel) if self._held else None
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
        if self.echo and piece.channel.kind is ChannelKind.TEXT and choice not in self._echoed:
            self._echoed |= {choice}
            text = self.echo + text
        self.log.append_text(piece.channel, text, now, ids, count, logprobs)

    def _pieces(self, pieces: Pieces, now: int) -> None:
        """Appends them in one step, if there is nothing to be seen to between them."""
        channel, choice = pieces.channel, pieces.channel.choice
        written = self._written.get(choice, 0) + sum(map(len, pieces.token_ids))
        if (
            self._again
            or self._held
            or (self.echo and choice not in self._echoed)
            or choice in self.log.choice_ends
            or choice >= self._choices
            or (self._max_tokens is not None and written > self._max_tokens)
        ):
            for piece in pieces.apart():
                self._piece(piece, now)
            return
        if self._max_tokens is not None:
            self._written[choice] = written
        self.log.append_texts(channel, pieces.texts, now, pieces.token_ids)

    def _prompt_logprobs(self, logprobs: Sequence[TokenLogprob], now: int) -> None:
        """Appends the prompt's log probabilities, as many to an event as a message can carry."""
        first, size = 0, 0
        for place, one in enumerate(logprobs):
            added = entries((one,))
            if size and size + added > EVENT_LOGPROBS:
                self.log.add(PromptTokens(token_offset=first, logprobs=tuple(logprobs[first:place])), now)
                first, size = place, 0
            size += added
        if size:
            self.log.add(PromptTokens(token_offset=first, logprobs=tuple(logprobs[first:])), now)

    def _window_full(self, choice: int) -> bool:
        """Whether a choice ended at its length because the window was full, before it had all it asked for."""
        written = sum(log.tokens[-1] for log in self.log.channels if log.channel.choice == choice)
        written += sum(held.count for channel, held in self._held.items() if channel.choice == choice)
        if self.window is None or not written or (self._max_tokens is not None and written >= self._max_tokens):
            return False
        return self.prompt.prompt_tokens + written >= self.window
