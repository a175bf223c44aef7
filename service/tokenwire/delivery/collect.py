"""A run's whole answer, from the events of a view: for unary RPCs and whoever waits for a run."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenwire.domain.cursor import ChannelKind
from tokenwire.domain.events import (
    ChoiceEnd,
    Delta,
    End,
    Envelope,
    PromptTokens,
    Start,
    TokenLogprob,
    ToolCallHead,
)
from tokenwire.domain.request import ToolCall


@dataclass(slots=True)
class Choice:
    """One choice as far as it was read."""

    index: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)
    heads: dict[int, ToolCallHead] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: ChoiceEnd | None = None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, by index."""
        return tuple(
            ToolCall(
                id=self.heads[index].id if index in self.heads else "",
                name=self.heads[index].name if index in self.heads else "",
                arguments="".join(self.calls.get(index, ())),
            )
            for index in sorted(self.heads.keys() | self.calls.keys())
        )


class Collector:
    """Joins the events of one view, read from the run's start. Events sent twice change nothing."""

    def __init__(self) -> None:
        self.start: Start | None = None
        self.end: End | None = None
        self.prompt_logprobs: list[TokenLogprob] = []
        self._choices: dict[int, Choice] = {}

    def add(self, envelopes: Iterable[Envelope]) -> None:
        """Takes the next messages."""
        for envelope in envelopes:
            match envelope.event:
                case Start() as start:
                    self.start = start
                case Delta() as delta:
                    self._delta(delta)
                case ToolCallHead() as head:
                    self._choice(head.channel.choice).heads[head.channel.index] = head
                case PromptTokens() as prompt:
                    self.prompt_logprobs[prompt.token_offset :] = prompt.logprobs
                case End() as end:
                    self.end = end
                    for one in end.choices:
                        choice = self._choice(one.choice)
                        choice.end = one
                        for trailing in one.trailing:
                            if trailing.channel.kind is ChannelKind.TEXT:
                                choice.token_ids.extend(trailing.token_ids)
                                choice.logprobs.extend(trailing.logprobs)
                case _:
                    pass

    @property
    def choices(self) -> list[Choice]:
        """The choices, by index."""
        return [self._choices[index] for index in sorted(self._choices)]

    def _choice(self, index: int) -> Choice:
        if index not in self._choices:
            self._choices[index] = Choice(index)
        return self._choices[index]

    def _delta(self, delta: Delta) -> None:
        choice = self._choice(delta.channel.choice)
        match delta.channel.kind:
            case ChannelKind.TEXT:
                choice.text.append(delta.text)
                choice.token_ids.extend(delta.token_ids)
                choice.logprobs.extend(delta.logprobs)
            case ChannelKind.REASONING:
                choice.reasoning.append(delta.text)
            case ChannelKind.TOOL_CALL:
                choice.calls.setdefault(delta.channel.index, []).append(delta.text)
