"""All that was read of a run: each channel's text, held against its offsets, and against its checksum at the end."""

import hashlib
from collections.abc import Mapping
from typing import Any

from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Delta, Dispatched, End, Event, Start, ToolCallDelta, UsageUpdate
from tokenwire_client.core.channel import Channel, Part, part_of


class CorruptError(ValueError):
    """What came is not what a server writes."""


class Text:
    """One channel as far as it was read.

    Attributes:
        start: where the reading began, in bytes; 0 unless it began in the middle of the run.
        data: the text from there on, as UTF-8.
        token_ids: the ids of its tokens, if asked for.
        logprobs: their log probabilities, if asked for.
    """

    __slots__ = ("data", "logprobs", "start", "token_ids", "tokens")

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.data = bytearray()
        self.tokens = 0
        self.token_ids: list[int] = []
        self.logprobs: list[Any] = []

    @property
    def end(self) -> int:
        """Where it stands, in bytes from the channel's start."""
        return self.start + len(self.data)


class Transcript:
    """Joins the events of one run, over as many calls as it takes. What comes again changes nothing.

    Args:
        after: where the reading begins; None: at the run's start, so that every byte can be verified.

    Attributes:
        texts: the channels.
        heads: the tool calls' ids and names, by channel.
        start: the run's `start`, once it came; `dispatched`, `usage`, `prompt` and `end` likewise.
    """

    def __init__(self, after: Cursor | None = None) -> None:
        self.texts: dict[Channel, Text] = {}
        self.heads: dict[Channel, tuple[str, str]] = {}
        self.start: Start | None = None
        self.dispatched: Dispatched | None = None
        self.usage: UsageUpdate | None = None
        self.prompt: list[Any] = []
        self.end: End | None = None
        # Two for each attempt of the run.
        self._usages: list[UsageUpdate] = []
        self._from_start = after is None or not after.ByteSize()
        for one in after.ahead if after is not None else ():
            self.texts[Channel(one.choice, one.kind, one.index)] = Text(one.byte_offset)

    def add(self, event: Event, kind: str | None) -> Event | None:
        """Takes the next event of this kind; returns what of it is new. Raises CorruptError."""
        if self.end is not None:
            raise CorruptError("an event came after the run's end")
        part = part_of(event, kind)
        if part is not None:
            return self._text(event, kind, part)
        match kind:
            case "start":
                if self.start is not None and self.start.run_id != event.start.run_id:
                    raise CorruptError("the stream goes on with another run")
                new, self.start = self.start is None, event.start
                return event if new else None
            case "dispatched":
                if self.dispatched is not None and event.dispatched.attempt <= self.dispatched.attempt:
                    return None
                self.dispatched = event.dispatched
            case "usage":
                if event.usage in self._usages:
                    return None
                self._usages.append(event.usage)
                self.usage = event.usage
            case "prompt":
                if event.prompt.token_offset + len(event.prompt.logprobs) <= len(self.prompt):
                    return None
                self.prompt[event.prompt.token_offset :] = event.prompt.logprobs
            case "end":
                self._verify(event.end)
                self.end = event.end
        return event

    def text(self, channel: Channel) -> str:
        """Returns a channel's text so far."""
        held = self.texts.get(channel)
        return held.data.decode(errors="replace") if held else ""

    def all_texts(self) -> Mapping[Channel, str]:
        """Returns every channel's text so far."""
        return {channel: self.text(channel) for channel, held in sorted(self.texts.items()) if held.data}

    def _text(self, event: Event, kind: str | None, part: Part) -> Event | None:
        channel, text, message = part
        new_head = isinstance(message, ToolCallDelta) and self._head(channel, message)
        if not text:
            return event if new_head or not isinstance(message, ToolCallDelta) else None
        held = self.texts.get(channel)
        if held is None:
            held = self.texts[channel] = Text(0 if self._from_start else message.byte_offset)
        data = text.encode()
        if message.byte_offset > held.end:
            raise CorruptError(f"the stream has a gap: text at byte {message.byte_offset} came after byte {held.end}")
        if message.byte_offset < held.end:
            known = _repeated(held, message.byte_offset, data)
            if known == len(data) and not new_head:
                return None
            event = Event.FromString(event.SerializeToString())
            rest = part_of(event, kind)
            assert rest is not None, "a copy is of the same kind"
            data = data[known:]
            _cut(rest.message, held, known, data)
            message = rest.message
        held.data += data
        held.tokens = message.token_offset + message.token_count
        if message.token_ids:
            held.token_ids.extend(message.token_ids)
        if message.logprobs:
            held.logprobs.extend(message.logprobs)
        return event

    def _head(self, channel: Channel, message: ToolCallDelta) -> bool:
        if not (message.id or message.name) or channel in self.heads:
            return False
        self.heads[channel] = (message.id, message.name)
        return True

    def _verify(self, end: End) -> None:
        accounted = set()
        for one in end.channels:
            channel = Channel(one.choice, one.kind, one.index)
            accounted.add(channel)
            held = self.texts.get(channel)
            if held is None:
                if self._from_start and one.bytes:
                    raise CorruptError(f"text is missing: 0 of {one.bytes} bytes were received")
            elif held.end != one.bytes:
                raise CorruptError(f"text is missing: {held.end} of {one.bytes} bytes were received")
            elif held.start == 0 and hashlib.sha256(held.data).hexdigest() != one.sha256:
                raise CorruptError("the text that was received is not the text that was written: its SHA-256 differs")
        if any(held.data and channel not in accounted for channel, held in self.texts.items()):
            raise CorruptError("text was received that the run does not have")


def _repeated(held: Text, offset: int, data: bytes) -> int:
    """Returns how many bytes of a text that begins before a channel's end are known; they must be the same."""
    known = min(held.end - offset, len(data))
    # What lies before the reading's beginning was never seen.
    unseen = max(held.start - offset, 0)
    if held.data[offset + unseen - held.start : offset + known - held.start] != data[unseen:known]:
        raise CorruptError(f"the text at byte {offset} came again, and is another one")
    return known


def _cut(message: Delta | ToolCallDelta, held: Text, known: int, rest: bytes) -> None:
    """Leaves what is new in a message whose first bytes are known."""
    try:
        text = rest.decode()
    except UnicodeDecodeError:
        raise CorruptError("a text that came again is cut inside a character") from None
    if isinstance(message, ToolCallDelta):
        message.arguments = text
    else:
        message.text = text
    message.byte_offset += known
    tokens = min(max(held.tokens - message.token_offset, 0), message.token_count)
    for values in (message.token_ids, message.logprobs):
        if len(values) == message.token_count:
            del values[:tokens]
    message.token_offset += tokens
    message.token_count -= tokens
