"""A run's events, and a server that sends them from any cursor, cut in any way."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tokenwire.v1.cursor_pb2 import CHANNEL_KIND_REASONING, ChannelOffset, Cursor
from tokenwire.v1.event_pb2 import (
    ChannelEnd,
    ChoiceEnd,
    Delta,
    Dispatched,
    End,
    Event,
    Heartbeat,
    Progress,
    Start,
    ToolCallDelta,
    UsageUpdate,
)
from tokenwire.v1.finish_pb2 import RunError
from tokenwire_client.core.channel import Channel, part_of


@dataclass
class Server:
    """Plays a run that has ended. Each call gets what comes after a cursor, merged or cut as the dice say.

    Args:
        pieces: channel and text of each journal event.
        rng: the dice.
        error: why the run failed.
    """

    pieces: Sequence[tuple[Channel, str]]
    rng: random.Random
    error: RunError | None = None
    texts: dict[Channel, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for channel, text in self.pieces:
            self.texts[channel] = self.texts.get(channel, "") + text

    def events(self, after: Cursor | None) -> Iterator[Event]:
        """Sends what comes after a cursor. Here `seq` is always 0 and every channel is said by its offset."""
        at = dict.fromkeys(self.texts, 0)
        for one in after.ahead if after is not None else ():
            at[Channel(one.choice, one.kind, one.index)] = one.byte_offset
        # Events without text are sent again.
        yield Event(start=Start(run_id="run_1", request_id="r"), cursor=self._cursor(at))
        yield Event(dispatched=Dispatched(attempt=1), cursor=self._cursor(at))
        yield Event(usage=UsageUpdate(attempt=1), cursor=self._cursor(at))
        while left := [channel for channel in at if at[channel] < len(self.texts[channel].encode())]:
            channel = self.rng.choice(left)
            data = self.texts[channel].encode()
            stop = self.rng.randint(at[channel] + 1, len(data))
            while stop < len(data) and data[stop] & 0xC0 == 0x80:
                stop += 1
            event = text_event(channel, at[channel], data[at[channel] : stop].decode())
            at[channel] = stop
            event.cursor.CopyFrom(self._cursor(at))
            yield event
            if self.rng.random() < 0.2:
                yield self.rng.choice([Event(heartbeat=Heartbeat()), Event(progress=Progress())])
        yield Event(end=end_of(self.texts, self.error), cursor=self._cursor(at))

    def _cursor(self, at: dict[Channel, int]) -> Cursor:
        return Cursor(
            ahead=[
                ChannelOffset(choice=one.choice, kind=one.kind, index=one.index, byte_offset=offset)
                for one, offset in sorted(at.items())
                if offset
            ]
        )


def text_event(channel: Channel, offset: int, text: str) -> Event:
    """Returns an event with text of a channel."""
    if channel.kind == 0:
        return Event(delta=Delta(choice=channel.choice, byte_offset=offset, text=text))
    if channel.kind == CHANNEL_KIND_REASONING:
        return Event(reasoning_delta=Delta(choice=channel.choice, byte_offset=offset, text=text))
    return Event(
        tool_call_delta=ToolCallDelta(choice=channel.choice, index=channel.index, byte_offset=offset, arguments=text)
    )


def end_of(texts: dict[Channel, str], error: RunError | None = None) -> End:
    """Returns the end of a run that has these texts."""
    channels = [
        ChannelEnd(
            choice=channel.choice,
            kind=channel.kind,
            index=channel.index,
            bytes=len(text.encode()),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        for channel, text in texts.items()
    ]
    return End(choices=[ChoiceEnd()], channels=channels, error=error)


def joined(events: Sequence[Event]) -> dict[Channel, str]:
    """Returns the texts of events."""
    texts: dict[Channel, str] = {}
    for event in events:
        part = part_of(event, event.WhichOneof("event"))
        if part is not None and part.text:
            texts[part.channel] = texts.get(part.channel, "") + part.text
    return texts
