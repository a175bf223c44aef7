"""A whole answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenwire.v1.cursor_pb2 import CHANNEL_KIND_REASONING, CHANNEL_KIND_TOOL_CALL, CHANNEL_KIND_UNSPECIFIED
from tokenwire.v1.finish_pb2 import FinishReason, Timings, Usage
from tokenwire.v1.run_pb2 import Choice, RunResult, ToolCall
from tokenwire_client.core.channel import Channel
from tokenwire_client.core.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Result:
    """A run's whole answer.

    Args:
        message: as the contract has it, with every choice.
    """

    message: RunResult

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self._first.text

    @property
    def texts(self) -> list[str]:
        """Each choice's text."""
        return [choice.text for choice in self.message.choices]

    @property
    def reasoning(self) -> str:
        """The first choice's reasoning."""
        return self._first.reasoning

    @property
    def tool_calls(self) -> Sequence[ToolCall]:
        """The tools that the first choice wants to be called."""
        return self._first.tool_calls

    @property
    def finish_reason(self) -> FinishReason.ValueType:
        """Why the first choice ended."""
        return self._first.finish_reason

    @property
    def usage(self) -> Usage:
        """The run's tokens."""
        return self.message.usage

    @property
    def timings(self) -> Timings:
        """The run's times."""
        return self.message.timings

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.message.run_id

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self.message.request_id

    @property
    def _first(self) -> Choice:
        return self.message.choices[0] if self.message.choices else Choice()


def result_of(read: Transcript, *, run_id: str, request_id: str) -> Result:
    """Joins what was read; what is missing because the reading began later is missing here too."""
    assert read.end is not None, "an answer is whole once the run has ended"
    message = RunResult(
        run_id=run_id,
        request_id=request_id,
        model=read.start.model if read.start else "",
        usage=read.end.usage,
        timings=read.end.timings,
        prompt_logprobs=read.prompt,
    )
    ends = {one.choice: one for one in read.end.choices}
    for index in sorted(ends.keys() | {channel.choice for channel in read.texts}):
        choice = message.choices.add(
            index=index,
            text=read.text(Channel(index)),
            reasoning=read.text(Channel(index, CHANNEL_KIND_REASONING)),
            tool_calls=tool_calls_of(read, index),
        )
        answer = read.texts.get(Channel(index))
        if answer is not None:
            choice.token_ids.extend(answer.token_ids)
            choice.logprobs.extend(answer.logprobs)
        if index in ends:
            choice.finish_reason = ends[index].finish_reason
            if ends[index].HasField("matched_stop"):
                choice.matched_stop.CopyFrom(ends[index].matched_stop)
            for trailing in ends[index].trailing:
                if trailing.kind == CHANNEL_KIND_UNSPECIFIED:
                    choice.token_ids.extend(trailing.token_ids)
                    choice.logprobs.extend(trailing.logprobs)
    return Result(message)


def tool_calls_of(read: Transcript, choice: int) -> list[ToolCall]:
    """Returns a choice's tool calls as far as they were read."""
    channels = sorted(
        channel
        for channel in read.heads.keys() | read.texts.keys()
        if channel.choice == choice and channel.kind == CHANNEL_KIND_TOOL_CALL
    )
    calls = []
    for channel in channels:
        call_id, name = read.heads.get(channel, ("", ""))
        calls.append(ToolCall(id=call_id, name=name, arguments=read.text(channel)))
    return calls
