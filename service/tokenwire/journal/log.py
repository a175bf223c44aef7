"""One run's journal, in memory: markers by number, text by channel."""

import asyncio
import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, repeat

from tokenwire.domain.cursor import Channel, Cursor
from tokenwire.domain.events import ChannelEnd, ChoiceEnd, End, Marker, PromptTokens, TokenLogprob
from tokenwire.journal.waiters import Waiters

# Stands for a token whose id the engine did not tell; no vocabulary is that large.
UNKNOWN_ID = 2**32 - 1
# What a run and each of its markers cost in memory, roughly.
LOG_BYTES = 512
MARKER_BYTES = 256
# What a log probability costs, roughly.
LOGPROB_BYTES = 200


@dataclass(frozen=True, slots=True)
class Marked:
    """A marker, its number, and when it was written in milliseconds since `start`."""

    seq: int
    at_ms: int
    marker: Marker


class ChannelLog:
    """The text of one channel: one growing byte string, and an index of the events that wrote it.

    Event i of the channel has the number `seqs[i]`, was written at `at_ms[i]`, and ends at byte `ends[i]` and after
    `tokens[i]` tokens. `token_ids` holds the ids of all tokens, UNKNOWN_ID where the engine did not tell.
    """

    __slots__ = ("at_ms", "channel", "ends", "logprobs", "seqs", "text", "token_ids", "tokens")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.text = bytearray()
        self.seqs = array("I")
        self.ends = array("I")
        self.tokens = array("I")
        self.at_ms = array("I")
        self.token_ids = array("I")
        self.logprobs: dict[int, tuple[TokenLogprob, ...]] = {}

    def consumed_at(self, seq: int) -> tuple[int, int]:
        """Returns how many events have numbers up to `seq`, and the byte at which the last of them ends."""
        count = bisect_right(self.seqs, seq)
        return count, self.ends[count - 1] if count else 0

    def is_boundary(self, offset: int) -> bool:
        """Whether `offset` lies between two code points, not inside one."""
        return offset == len(self.text) or (offset < len(self.text) and self.text[offset] & 0xC0 != 0x80)


class RunLog:
    """A run's journal. One writer; any number of readers, which see an event only once it is committed.

    Args:
        sink: is told that there are events to be kept, and calls `publish` once they are; None: what is appended is
            committed at the next `wake`.
        epoch: the number of this writer, 1 being the first and each later one larger; None: a journal that nobody can
            take over.

    Attributes:
        head: the number of the last event.
        committed: the number of the last event that readers may see.
        markers: the events without text.
        channels: the texts, in the order of their first event.
        choice_ends: how choices ended, before `end` says so.
        takeovers: for each epoch after the first the head at which it began.
        dropped: whether the text was given up.
        closed: whether `end` was appended.
        size: bytes of memory held, roughly.
    """

    __slots__ = (
        "_by_channel",
        "_listeners",
        "_sink",
        "_waiters",
        "channels",
        "choice_ends",
        "closed",
        "committed",
        "dropped",
        "epoch",
        "head",
        "markers",
        "size",
        "takeovers",
    )

    def __init__(self, sink: "Callable[[RunLog], None] | None" = None, epoch: int | None = None) -> None:
        self.head = 0
        self.committed = 0
        self.epoch = epoch
        self.takeovers: list[tuple[int, int]] = []
        self.markers: list[Marked] = []
        self.channels: list[ChannelLog] = []
        self.choice_ends: dict[int, ChoiceEnd] = {}
        self.dropped = False
        self.closed = False
        self.size = _record_size(())
        # None as long as nobody waits, as where all readers listen.
        self._waiters: Waiters | None = None
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._sink = sink
        self._by_channel: dict[Channel, ChannelLog] = {}

    @property
    def end(self) -> End | None:
        """The `end` event, once readers may see it."""
        last = self.markers[-1].marker if self.markers and self.committed == self.head else None
        return last if isinstance(last, End) else None

    @property
    def text_size(self) -> int:
        """The part of `size` that giving the text up would free."""
        return self.size - _record_size(self.markers)

    def append(self, marker: Marker, at_ms: int) -> None:
        """Appends an event without text."""
        self.add(marker, at_ms)
        self.wake()

    def add(self, marker: Marker, at_ms: int) -> None:
        """Appends an event without text, and wakes nobody."""
        assert not self.closed, "nothing follows the end of a run"
        self.head += 1
        self.markers.append(Marked(self.head, at_ms, marker))
        self.closed = isinstance(marker, End)
        self.size += MARKER_BYTES
        if isinstance(marker, PromptTokens):
            self.size += LOGPROB_BYTES * entries(marker.logprobs)

    def note_end(self, end: ChoiceEnd) -> None:
        """Keeps how a choice ended, until `end` tells it."""
        self.choice_ends[end.choice] = end

    def append_text(
        self,
        channel: Channel,
        text: str,
        at_ms: int,
        token_ids: Sequence[int] = (),
        token_count: int = 0,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """Appends text to a channel, without waking the readers: the writer does so once for all it has."""
        assert not self.closed, "nothing follows the end of a run"
        # What cannot be stored fails here, before anything is changed.
        data = text.encode()
        single = len(token_ids) == token_count == 1 and 0 <= token_ids[0] < UNKNOWN_ID
        ids = None if single else array("I", token_ids)
        log = self._by_channel.get(channel) or self._open(channel)
        if ids is None:
            log.token_ids.append(token_ids[0])
        else:
            log.token_ids.extend(ids if len(ids) == token_count else repeat(UNKNOWN_ID, token_count))
        self.head += 1
        log.text += data
        self.size += len(data) + 16 + 4 * token_count + (LOGPROB_BYTES * entries(logprobs) if logprobs else 0)
        log.seqs.append(self.head)
        log.ends.append(len(log.text))
        log.tokens.append((log.tokens[-1] if log.tokens else 0) + token_count)
        log.at_ms.append(at_ms)
        if logprobs:
            log.logprobs[len(log.seqs) - 1] = logprobs

    def append_texts(
        self, channel: Channel, texts: Sequence[str], at_ms: int, token_ids: Sequence[Sequence[int]]
    ) -> None:
        """Appends several texts to a channel: as `append_text` for each with the ids of all its tokens, in one step."""
        assert not self.closed, "nothing follows the end of a run"
        # What cannot be stored fails here, before anything is changed.
        data = "".join(texts).encode()
        ids = array("I", chain.from_iterable(token_ids))
        log = self._by_channel.get(channel) or self._open(channel)
        events, counted = len(texts), log.tokens[-1] if log.tokens else 0
        lengths = map(len, texts) if data.isascii() else (len(text.encode()) for text in texts)
        log.ends.extend(islice(accumulate(lengths, initial=len(log.text)), 1, None))
        log.tokens.extend(islice(accumulate(map(len, token_ids), initial=counted), 1, None))
        log.seqs.extend(range(self.head + 1, self.head + 1 + events))
        log.at_ms.extend(repeat(at_ms, events))
        log.token_ids.extend(ids)
        log.text += data
        self.head += events
        self.size += len(data) + 16 * events + 4 * len(ids)

    def add_texts(
        self,
        channel: Channel,
        text: bytes,
        *,
        seqs: Sequence[int],
        ends: Sequence[int],
        tokens: Sequence[int],
        at_ms: Sequence[int],
        token_ids: Sequence[int],
        logprobs: Mapping[int, tuple[TokenLogprob, ...]],
    ) -> None:
        """Adds events of one channel that another process wrote: as ChannelLog has them, counted from its end.

        `head` is left as it is: whoever adds knows what comes between.
        """
        log = self._by_channel.get(channel) or self._open(channel)
        events, start, counted = len(log.seqs), len(log.text), log.tokens[-1] if log.tokens else 0
        log.text += text
        log.seqs.extend(seqs)
        log.ends.extend(start + end for end in ends)
        log.tokens.extend(counted + count for count in tokens)
        log.at_ms.extend(at_ms)
        log.token_ids.extend(token_ids)
        log.logprobs.update((events + place, told) for place, told in logprobs.items())
        told = sum(entries(one) for one in logprobs.values())
        self.size += len(text) + 16 * len(seqs) + 4 * len(token_ids) + LOGPROB_BYTES * told

    def channel(self, channel: Channel) -> ChannelLog | None:
        """Returns a channel's log, or None if nothing was written to it."""
        return self._by_channel.get(channel)

    def wake(self) -> None:
        """Says that something was appended: it is committed, or handed to the sink first."""
        if self._sink is not None:
            self._sink(self)
        else:
            self.committed = self.head
            # As `notify`, by one call less.
            if self._waiters is not None:
                self._waiters.wake()
            for listener in self._listeners:
                listener()

    def publish(self, seq: int) -> None:
        """Lets the readers see all events up to a number."""
        self.committed = seq
        self.notify()

    def sink_into(self, sink: "Callable[[RunLog], None] | None") -> None:
        """Changes who keeps the events."""
        self._sink = sink

    def notify(self) -> None:
        """Wakes the readers that wait, and tells those that listen."""
        if self._waiters is not None:
            self._waiters.wake()
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` at every change from now on, where it happens: it neither waits nor raises."""
        self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Calls it no more."""
        self._listeners = tuple(one for one in self._listeners if one != listener)

    def changed(self) -> asyncio.Future[None]:
        """Returns a future that ends when something is committed, or the text is dropped."""
        if self._waiters is None:
            self._waiters = Waiters()
        return self._waiters.wait()

    def channel_ends(self) -> tuple[ChannelEnd, ...]:
        """Returns each channel's length and SHA-256, sorted by channel."""
        return tuple(
            ChannelEnd(
                channel=log.channel,
                bytes=len(log.text),
                tokens=log.tokens[-1],
                sha256=hashlib.sha256(log.text).hexdigest(),
            )
            for log in sorted(self.channels, key=lambda log: log.channel)
        )

    @property
    def head_cursor(self) -> Cursor:
        """The cursor of a reader that has consumed all that is committed."""
        return Cursor(self.committed, (), self.epoch)

    def drop(self) -> None:
        """Gives the text up, and the prompt's tokens; only the other markers stay, for the record."""
        self.dropped = True
        self.markers = [one for one in self.markers if not isinstance(one.marker, PromptTokens)]
        self.channels = []
        self._by_channel = {}
        self.size = _record_size(self.markers)
        self.notify()

    def _open(self, channel: Channel) -> ChannelLog:
        log = self._by_channel[channel] = ChannelLog(channel)
        self.channels.append(log)
        return log


def entries(logprobs: Sequence[TokenLogprob]) -> int:
    """Returns how many log probabilities there are, those of other tokens at the same places included."""
    return sum(1 + len(one.top) + len(one.given) for one in logprobs)


def _record_size(markers: Sequence[Marked]) -> int:
    return LOG_BYTES + MARKER_BYTES * len(markers)
