"""Holds what was read against what the server says that it wrote."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tokenwire.cli.failure import CommandError
from tokenwire.v1.cursor_pb2 import CHANNEL_KIND_REASONING, CHANNEL_KIND_TOOL_CALL, CHANNEL_KIND_UNSPECIFIED
from tokenwire.v1.event_pb2 import End, Event

# Choice, kind, index.
Channel = tuple[int, int, int]


@dataclass(slots=True)
class _Text:
    start: int
    end: int
    digest: Any = field(default_factory=hashlib.sha256)


class Verification:
    """Follows each channel's offsets and checksum.

    Args:
        from_start: whether the reading began with the run; else only what is known of a channel can be checked.
    """

    def __init__(self, *, from_start: bool) -> None:
        self._from_start = from_start
        self._channels: dict[Channel, _Text] = {}

    def add(self, event: Event) -> None:
        """Takes the next event. Raises CommandError if text is missing or comes twice."""
        found = _text(event)
        # The head of a tool call has no text, and may come again.
        if found is None or not found[2]:
            return
        channel, offset, data = found
        text = self._channels.get(channel)
        if text is None:
            text = self._channels[channel] = _Text(0 if self._from_start else offset, 0 if self._from_start else offset)
        if offset != text.end:
            raise CommandError(f"the stream has a gap: text at byte {offset} came after byte {text.end}")
        text.end += len(data)
        text.digest.update(data)

    def check(self, end: End) -> None:
        """Raises CommandError if what was read is not what was written."""
        for written in end.channels:
            text = self._channels.get((written.choice, written.kind, written.index))
            if text is None:
                if self._from_start and written.bytes:
                    raise CommandError(f"text is missing: 0 of {written.bytes} bytes were received")
            elif text.end != written.bytes:
                raise CommandError(f"text is missing: {text.end} of {written.bytes} bytes were received")
            elif text.start == 0 and text.digest.hexdigest() != written.sha256:
                raise CommandError("the text that was received is not the text that was written: its SHA-256 differs")


def _text(event: Event) -> tuple[Channel, int, bytes] | None:
    match event.WhichOneof("event"):
        case "delta":
            delta = event.delta
            return (delta.choice, CHANNEL_KIND_UNSPECIFIED, 0), delta.byte_offset, delta.text.encode()
        case "reasoning_delta":
            delta = event.reasoning_delta
            return (delta.choice, CHANNEL_KIND_REASONING, 0), delta.byte_offset, delta.text.encode()
        case "tool_call_delta":
            call = event.tool_call_delta
            return (call.choice, CHANNEL_KIND_TOOL_CALL, call.index), call.byte_offset, call.arguments.encode()
        case _:
            return None
