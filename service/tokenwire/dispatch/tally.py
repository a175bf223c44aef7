"""Counts a run's tokens over all its attempts."""

from collections.abc import Mapping

from tokenwire.domain.events import Usage, UsageUpdate
from tokenwire.domain.generation import PromptRead, Totals
from tokenwire.journal.log import RunLog


class Tally:
    """What a run has used; made of its log, and told of what comes.

    The prompt's counts are those of the last attempt that began without text: what an engine that goes on with an
    answer had cached of it says nothing of the run.

    Attributes:
        prompt: what is known of the prompt.
        trailing: tokens without text in choices that have ended.
        again: for each choice how many tokens the log has that come once more.
        written: for each choice how many tokens it has; its writer counts on.
    """

    __slots__ = ("_base", "_goes_on", "_log", "_parts", "_read", "_totals", "again", "prompt", "trailing", "written")

    def __init__(self, log: RunLog) -> None:
        updates = [marked.marker.usage for marked in log.markers if isinstance(marked.marker, UsageUpdate)]
        last = updates[-1] if updates else Usage()
        self.prompt = PromptRead(prompt_tokens=last.prompt_tokens, cached_tokens=last.cached_tokens)
        self._log = log
        self.trailing = sum(len(one.token_ids) for end in log.choice_ends.values() for one in end.trailing)
        self.again: dict[int, int] = {}
        self.written: dict[int, int] = {}
        self._count_written()
        self._goes_on = bool(log.channels)
        self._parts = 1
        self._base = 0
        self._totals: list[Totals] = []
        self._read = False

    def begin(self, again: Mapping[int, int], parts: int) -> None:
        """Begins another attempt; see Writer.begin."""
        self.again.clear()
        self.again.update((choice, tokens) for choice, tokens in again.items() if tokens)
        self._goes_on = bool(self._log.channels)
        self._parts = parts
        self._totals = []
        self._read = False
        self._count_written()
        self._base = self._counted() - sum(self.again.values())

    def read(self, prompt: PromptRead) -> bool:
        """Takes what an engine says of the prompt; returns whether it is news: answers side by side all say it."""
        if self._read and self._parts > 1:
            return False
        self._read = True
        if not self._goes_on:
            self.prompt = prompt
        elif not self.prompt.prompt_tokens:
            # The engines before this one told nothing.
            self.prompt = PromptRead(prompt_tokens=prompt.prompt_tokens, cached_tokens=0)
        return True

    def told(self, totals: Totals) -> None:
        """Takes an engine's last counts of one answer."""
        if self._parts == 1:
            self._totals.clear()
        self._totals.append(totals)

    def known(self, choice: int, count: int) -> int:
        """Returns how many of the next tokens of a choice the log has already."""
        left = self.again.get(choice, 0)
        known = min(left, count)
        if known == left:
            self.again.pop(choice, None)
        else:
            self.again[choice] = left - known
        return known

    def usage(self, held: int) -> Usage:
        """Returns the counts; `held` are tokens without text in choices that go on."""
        prompt, cached = self.prompt.prompt_tokens, self.prompt.cached_tokens
        output, reasoning = self._counted() + held, 0
        # As long as one part has not told its counts, the others' are no sum.
        if len(self._totals) == self._parts:
            counts = [one.output_tokens for one in self._totals]
            if all(count is not None for count in counts):
                output = self._base + sum(count or 0 for count in counts)
            reasoning = sum(one.reasoning_tokens or 0 for one in self._totals)
            first = self._totals[0]
            if not self._goes_on:
                prompt = prompt if first.prompt_tokens is None else first.prompt_tokens
                cached = cached if first.cached_tokens is None else first.cached_tokens
            elif not prompt and first.prompt_tokens is not None:
                prompt = first.prompt_tokens
        return Usage(prompt_tokens=prompt, cached_tokens=cached, output_tokens=output, reasoning_tokens=reasoning)

    def _count_written(self) -> None:
        self.written.clear()
        for log in self._log.channels:
            choice = log.channel.choice
            self.written[choice] = self.written.get(choice, 0) + log.tokens[-1]

    def _counted(self) -> int:
        return sum(log.tokens[-1] for log in self._log.channels) + self.trailing
