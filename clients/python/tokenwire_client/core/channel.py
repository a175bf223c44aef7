"""The channels of a run: what each event carries of which text."""

from dataclasses import dataclass
from typing import NamedTuple

from tokenwire.v1.cursor_pb2 import (
    CHANNEL_KIND_REASONING,
    CHANNEL_KIND_TOOL_CALL,
    CHANNEL_KIND_UNSPECIFIED,
    ChannelKind,
)
from tokenwire.v1.event_pb2 import Delta, Event, ToolCallDelta


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """One text of a run: a choice's answer, its reasoning, or the arguments of one of its tool calls."""

    choice: int = 0
    kind: ChannelKind.ValueType = CHANNEL_KIND_UNSPECIFIED
    index: int = 0


class Part(NamedTuple):
    """The text that an event carries."""

    channel: Channel
    text: str
    message: Delta | ToolCallDelta


def part_of(event: Event, kind: str | None) -> Part | None:
    """Returns the text of an event of this kind; None if it carries none."""
    match kind:
        case "delta":
            delta = event.delta
            return Part(Channel(delta.choice), delta.text, delta)
        case "reasoning_delta":
            delta = event.reasoning_delta
            return Part(Channel(delta.choice, CHANNEL_KIND_REASONING), delta.text, delta)
        case "tool_call_delta":
            call = event.tool_call_delta
            return Part(Channel(call.choice, CHANNEL_KIND_TOOL_CALL, call.index), call.arguments, call)
        case _:
            return None
