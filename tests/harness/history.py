"""What engines sent, what readers got, and whether the service kept its promises about it (contract: P1 to P5, P11)."""

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from tokenwire.domain.cursor import START, Channel, ChannelKind, Cursor
from tokenwire.domain.events import Dispatched, End, PromptTokens, Start, ToolCallHead, UsageUpdate
from tokenwire.domain.generation import CallHead, Generated, Job, Piece, PromptRead, Tell
from tokenwire.engines.scripted import Script, ScriptedEngine
from tokenwire.journal.log import UNKNOWN_ID, RunLog
from tokenwire.rpc.requests import from_cursor
from tokenwire.v1.event_pb2 import Event

TEXT = Channel()
# The status of a call that its own client gave up, or whose line broke.
LEFT = "left"
# What a view says beside the journal's events.
_VIEW_ONLY = ("progress", "heartbeat", "detached", None)
_KINDS: dict[type, str] = {
    Start: "start",
    Dispatched: "dispatched",
    ToolCallHead: "tool_call_delta",
    UsageUpdate: "usage",
    PromptTokens: "prompt",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that the journal must hold; with text of a channel, from byte `start` to `end`, or without."""

    kind: str
    channel: Channel = TEXT
    start: int = 0
    end: int = 0
    ids: tuple[int, ...] = ()


@dataclass(slots=True)
class Sent:
    """What an engine sent for one run."""

    request_id: str
    entries: list[Entry] = field(default_factory=lambda: [Entry("start"), Entry("dispatched")])
    texts: dict[Channel, str] = field(default_factory=lambda: defaultdict(str))
    trailing: dict[Channel, tuple[int, ...]] = field(default_factory=lambda: defaultdict(tuple))
    writing: bool = True

    def note(self, batch: list[Generated]) -> None:
        """Takes one batch to the record."""
        for item in batch:
            if isinstance(item, Piece):
                channel = item.channel
                ids = (*self.trailing.pop(channel, ()), *item.token_ids)
                if not item.text:
                    self.trailing[channel] = ids
                    continue
                start = len(self.texts[channel].encode())
                self.texts[channel] += item.text
                self.entries.append(Entry("text", channel, start, start + len(item.text.encode()), ids))
            elif isinstance(item, CallHead | PromptRead):
                self.entries.append(Entry("tool_call_delta" if isinstance(item, CallHead) else "usage"))


def sent_from(log: RunLog, request_id: str) -> Sent:
    """Returns what a journal holds, as if one engine had sent it all."""
    found = {marked.seq: Entry(_KINDS[type(marked.marker)]) for marked in log.markers if type(marked.marker) in _KINDS}
    sent = Sent(request_id, writing=False)
    for channel in log.channels:
        start = counted = 0
        for seq, end, tokens in zip(channel.seqs, channel.ends, channel.tokens, strict=True):
            found[seq] = Entry("text", channel.channel, start, end, tuple(channel.token_ids[counted:tokens]))
            start, counted = end, tokens
        sent.texts[channel.channel] = channel.text.decode()
    sent.entries = [found[seq] for seq in sorted(found)]
    last = log.markers[-1].marker if log.markers else None
    for choice in last.choices if isinstance(last, End) else ():
        sent.trailing |= {one.channel: one.token_ids for one in choice.trailing}
    return sent


def problems_of(reading: "Reading", sent: Sent) -> Iterator[str]:
    """Yields what is wrong with one call, held against what its run's journal holds."""
    yield from (one for one in _terminals(reading) if not one.startswith("P4"))
    yield from _Replay(reading, sent).problems()
    for message in reading.messages:
        if message.HasField("end"):
            yield from _digests(message, sent)


class RecordingEngine(ScriptedEngine):
    """A scripted engine that records what it sends, by run id."""

    def __init__(self, script: Script) -> None:
        super().__init__(script=script)
        self.sent: dict[str, Sent] = {}

    async def generate(self, job: Job, tell: Tell) -> None:
        """Plays the script, on the record."""
        sent = self.sent[job.run_id] = Sent(job.submission.run.request_id)

        def note(batch: list[Generated]) -> None:
            sent.note(batch)
            tell(batch)

        try:
            await super().generate(job, note)
        finally:
            sent.writing = False


@dataclass(slots=True)
class Reading:
    """One call: who read which request's run from where, what came, and the status at its end."""

    reader: str
    request_id: str
    after: Cursor
    token_ids: bool
    messages: list[Event] = field(default_factory=list)
    status: str = ""
    engine_was_writing: bool = False
    run_id: str = ""

    @property
    def cursor(self) -> Cursor:
        """Where the reader is afterwards."""
        return from_cursor(self.messages[-1].cursor) if self.messages else self.after

    @property
    def ended(self) -> bool:
        """Whether the run's end was read."""
        return any(message.HasField("end") for message in self.messages)


class History:
    """Records calls on a service, and judges them."""

    def __init__(self, engine: RecordingEngine) -> None:
        self.engine = engine
        self.readings: list[Reading] = []

    async def read(
        self,
        call: "grpc.aio.UnaryStreamCall[Any, Event]",
        *,
        reader: str,
        request_id: str,
        after: Cursor = START,
        token_ids: bool = False,
        limit: int | None = None,
    ) -> Reading:
        """Reads a call to its end, or leaves after so many messages."""
        reading = Reading(reader, request_id, after, token_ids)
        self.readings.append(reading)
        events: AsyncIterator[Event] = aiter(call)
        try:
            async for event in events:
                reading.messages.append(event)
                if event.HasField("end"):
                    reading.engine_was_writing = any(sent.writing for sent in self._runs(request_id).values())
                if len(reading.messages) == limit and not reading.ended:
                    call.cancel()
                    reading.status = LEFT
                    return reading
            reading.status = "OK"
        except grpc.aio.AioRpcError as error:
            reading.status = error.code().name
        return reading

    def problems(self) -> list[str]:
        """Returns every promise that was broken, by its name."""
        return [
            *self._once(),
            *(f"{one} ({reading.reader})" for reading in self.readings for one in self._call(reading)),
        ]

    def _runs(self, request_id: str) -> dict[str, Sent]:
        return {run_id: sent for run_id, sent in self.engine.sent.items() if sent.request_id == request_id}

    def _sent(self, reading: Reading) -> Sent:
        runs = self._runs(reading.request_id)
        started = next((message.start.run_id for message in reading.messages if message.HasField("start")), "")
        # A run that ended before any engine got it holds its start alone.
        return runs.get(started) or next(iter(runs.values()), Sent(reading.request_id, entries=[Entry("start")]))

    def _once(self) -> Iterator[str]:
        failed = {
            reading.request_id
            for reading in self.readings
            for message in reading.messages
            if message.HasField("end") and message.end.HasField("error")
        }
        for request_id in {sent.request_id for sent in self.engine.sent.values()} - {""} - failed:
            if len(self._runs(request_id)) > 1:
                yield f"P11: {request_id} has several runs of which none failed"
        if self.engine.running or any(sent.writing for sent in self.engine.sent.values()):
            yield "P5: an engine still writes"

    def _call(self, reading: Reading) -> Iterator[str]:
        sent = self._sent(reading)
        yield from _terminals(reading)
        yield from _Replay(reading, sent).problems()
        for message in reading.messages:
            if message.HasField("end"):
                yield from _digests(message, sent)
                if reading.engine_was_writing:
                    yield "P5: the run ended while its engine wrote"
        chain = [one for one in self.readings if (one.reader, one.request_id) == (reading.reader, reading.request_id)]
        if reading is chain[-1] and reading.ended and chain[0].after == START:
            for channel, text in sent.texts.items():
                if (
                    "".join(_text(message) for one in chain for message in one.messages if _at(message) == channel)
                    != text
                ):
                    yield f"P3: the text of {channel} over all calls of one reader is not what the engine sent"


def _terminals(reading: Reading) -> Iterator[str]:
    ends = [number for number, message in enumerate(reading.messages) if message.HasField("end")]
    if len(ends) > 1:
        yield "P1: the run ended more than once"
    if ends and ends[0] != len(reading.messages) - 1:
        yield "P1: something follows the end"
    if not ends and reading.status == "OK":
        yield "P1: OK without an end"
    if not ends and reading.status not in ("OK", LEFT):
        yield f"P4: the stream broke off with {reading.status}"
    if ends:
        end = reading.messages[ends[0]].end
        # Numbers are gRPC's own.
        code = next(one.name for one in grpc.StatusCode if one.value[0] == end.error.code)
        if reading.status not in (code, LEFT):
            yield f"P1: the end says {code}, the status {reading.status}"


def _digests(message: Event, sent: Sent) -> Iterator[str]:
    told = {
        Channel(one.choice, ChannelKind(one.kind), one.index): (one.bytes, one.sha256) for one in message.end.channels
    }
    texts = {channel: text.encode() for channel, text in sent.texts.items()}
    if told != {channel: (len(data), hashlib.sha256(data).hexdigest()) for channel, data in texts.items()}:
        yield "P3: the lengths or digests in the end are wrong"
    if message.cursor.seq != len(sent.entries) + 1:
        yield f"P2: the numbers are not dense: {message.cursor.seq} events, {len(sent.entries) + 1} written"


class _Replay:
    """Applies a call's messages to where its reader was, and says what does not fit."""

    def __init__(self, reading: Reading, sent: Sent) -> None:
        self._reading = reading
        self._sent = sent
        self._entries = [*sent.entries, Entry("end")]
        self._offsets = self._upto(reading.after.seq) | dict(reading.after.ahead)
        # Whoever has read the end already gets it again.
        self._open = [
            seq for seq, entry in enumerate(self._entries, 1) if entry.kind != "text" and seq > reading.after.seq
        ] or [len(self._entries)]

    def problems(self) -> Iterator[str]:
        """Yields what does not fit."""
        elapsed: dict[Channel, int] = defaultdict(int)
        for message in self._reading.messages:
            channel = _at(message)
            if message.WhichOneof("event") in _VIEW_ONLY:
                # Its cursor is where the reader is.
                pass
            elif channel is None:
                yield from self._without_text(message)
            else:
                yield from self._with_text(message, channel)
                if message.elapsed_ms < elapsed[channel]:
                    yield f"P2: the times of {channel} go back"
                elapsed[channel] = message.elapsed_ms
            cursor = from_cursor(message.cursor)
            if (cursor.seq, cursor.ahead) != self._cursor():
                yield f"P2: the cursor is {cursor}, and {self._cursor()} was read"

    def _upto(self, seq: int) -> dict[Channel, int]:
        return {entry.channel: entry.end for entry in self._entries[:seq] if entry.kind == "text"}

    def _cursor(self) -> tuple[int, tuple[tuple[Channel, int], ...]]:
        missing = set(self._open)
        missing |= {
            seq
            for seq, entry in enumerate(self._entries, 1)
            if entry.kind == "text" and entry.end > self._offsets.get(entry.channel, 0)
        }
        seq = min(missing, default=len(self._entries) + 1) - 1
        upto = self._upto(seq)
        ahead = ((channel, at) for channel, at in self._offsets.items() if at > upto.get(channel, 0))
        return seq, tuple(sorted(ahead))

    def _without_text(self, message: Event) -> Iterator[str]:
        kind = message.WhichOneof("event")
        expected = self._entries[self._open[0] - 1].kind if self._open else "nothing"
        if kind != expected:
            yield f"P2: {kind} came where {expected} was due"
        self._open = self._open[1:]
        if kind == "end":
            for channel, text in self._sent.texts.items():
                if self._offsets.get(channel, 0) != len(text.encode()):
                    yield f"P3: the end came before all of {channel}"
            trailing = {
                Channel(choice.choice, ChannelKind(one.kind), one.index): tuple(one.token_ids)
                for choice in message.end.choices
                for one in choice.trailing
                if one.token_ids
            }
            sent = {channel: tuple(ids) for channel, ids in self._sent.trailing.items() if ids}
            if self._reading.token_ids and trailing != sent:
                yield "P3: the ids after the last text are wrong"

    def _with_text(self, message: Event, channel: Channel) -> Iterator[str]:
        inner = getattr(message, str(message.WhichOneof("event")))
        start, offset = self._offsets.get(channel, 0), inner.byte_offset
        if offset != start:
            yield f"P2: {channel} goes on at {offset} after {start}"
        data = _text(message).encode()
        if self._sent.texts.get(channel, "").encode()[offset : offset + len(data)] != data or not data:
            yield f"P3: the text of {channel} at {offset} is not what the engine sent"
        self._offsets[channel] = offset + len(data)
        whole = [
            entry
            for entry in self._entries
            if entry.kind == "text" and entry.channel == channel and start < entry.end <= offset + len(data)
        ]
        ids = [one for entry in whole for one in entry.ids]
        told = [] if UNKNOWN_ID in ids else ids
        if inner.token_count != len(ids) or (self._reading.token_ids and list(inner.token_ids) != told):
            yield f"P3: the tokens of {channel} at {offset} are not those of the text"


def _at(message: Event) -> Channel | None:
    """Returns the channel of a message's text, or None if it has none."""
    match message.WhichOneof("event"):
        case "delta":
            return Channel(message.delta.choice)
        case "reasoning_delta":
            return Channel(message.reasoning_delta.choice, ChannelKind.REASONING)
        case "tool_call_delta" if message.tool_call_delta.arguments:
            return Channel(message.tool_call_delta.choice, ChannelKind.TOOL_CALL, message.tool_call_delta.index)
        case _:
            return None


def _text(message: Event) -> str:
    return message.delta.text or message.reasoning_delta.text or message.tool_call_delta.arguments
