"""A reader's view of a run: what is new after its cursor, cut as it asked for."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tokenwire.delivery.buffers import Buffer, NoBuffer, SizeBuffer, code_point_start
from tokenwire.domain.cursor import START, ChannelKind, Cursor
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import ChoiceEnd, Delta, End, Envelope
from tokenwire.domain.request import UNBUFFERED, BufferingMode, Delivery
from tokenwire.journal.log import UNKNOWN_ID, ChannelLog, RunLog, entries

# Larger messages cost memory at both ends, and slow readers hold several (docs/decisions/0003).
MAX_TEXT_BYTES = 32 * 1024
# Log probabilities of several events in one message; each takes some 25 bytes, and a message may have 4 MiB.
MAX_LOGPROBS = 16_384


class _Position:
    """How far a view is in one channel: `events` wholly consumed, `sent` bytes."""

    __slots__ = ("buffer", "events", "log", "sent", "whole")

    def __init__(self, log: ChannelLog, buffer: Buffer, events: int, sent: int, *, token_ids: bool) -> None:
        self.log = log
        self.buffer = buffer
        self.events = events
        self.sent = sent
        # Whether the channel's text goes out as it comes, and alone.
        self.whole = not token_ids and type(buffer) is NoBuffer


class View:
    """Follows a run's journal from a cursor.

    `take` returns all that can go out now; text that has gathered is merged into one message a channel. Between two
    markers (events without text) channels are merged apart, so messages may overtake each other across channels; the
    cursor of each message says exactly what was consumed with it.

    Args:
        log: the run's journal.
        after: what the reader has consumed already.
        delivery: how the text is cut.
        token_ids: tell the tokens' ids.
        full_text: repeat the channels' whole texts in `end`.

    Raises InvalidRequestError if the cursor is past the run or inside a code point.
    """

    __slots__ = (
        "_after",
        "_delivery",
        "_full_text",
        "_log",
        "_marker",
        "_positions",
        "_seen",
        "_token_ids",
        "cursor",
        "ended",
    )

    def __init__(
        self,
        log: RunLog,
        after: Cursor = START,
        delivery: Delivery | None = None,
        *,
        token_ids: bool = False,
        full_text: bool = False,
    ) -> None:
        self._log = log
        self._token_ids = token_ids
        self._delivery = delivery or Delivery()
        self._full_text = full_text
        self._after = after
        self._positions: list[_Position] = []
        self._marker = bisect_right(log.markers, after.seq, key=lambda marked: marked.seq)
        if log.end is not None:
            # Whoever has read `end` already gets it again: every stream that ends well has one.
            self._marker = min(self._marker, len(log.markers) - 1)
        self.cursor = after
        self.ended = False
        self._seen = -1
        _check(log, after)
        self._open_channels()

    @property
    def behind(self) -> bool:
        """Whether something was committed since the last `take`."""
        return self._seen != self._log.committed or self._log.dropped

    def take(self) -> Iterable[Envelope]:
        """Returns the messages that can go out now; none if there is nothing, or only text that is held back.

        Each is made when it is asked for, so that a reader that lags holds one and not all it has missed. What is
        appended meanwhile is for the next `take`. Raises OUT_OF_RANGE if the text was dropped, here or on the way.
        """
        newest = self.newest()
        if newest is not None:
            return (newest,)
        log = self._log
        if log.dropped:
            raise _dropped()
        self._seen = log.committed
        if len(self._positions) != len(log.channels):
            self._open_channels()
        return self._messages(self._seen)

    def newest(self) -> Envelope | None:
        """Takes all there is, if that is what it nearly always is: new text of the run's one channel, and nothing else.

        Returns None, and takes nothing, if there is nothing, or there is more to it.
        """
        log = self._log
        committed = log.committed
        if committed != log.head or self._marker != len(log.markers) or len(log.channels) != 1 or not self._positions:
            return None
        position = self._positions[0]
        channel, first, sent = position.log, position.events, position.sent
        written = len(channel.text)
        if not sent < written <= sent + MAX_TEXT_BYTES or not position.whole or channel.logprobs or log.dropped:
            return None
        tokens = channel.tokens
        token_offset = tokens[first - 1] if first else 0
        position.sent, position.events = written, len(tokens)
        self._seen = committed
        self.cursor = cursor = tuple.__new__(Cursor, (committed, (), log.epoch))
        text = channel.text[sent:].decode()
        # As the classes themselves do, by one call less for each.
        new = tuple.__new__
        delta = new(Delta, (channel.channel, text, sent, token_offset, tokens[-1] - token_offset, (), ()))
        return new(Envelope, (delta, cursor, channel.at_ms[-1]))

    def _messages(self, committed: int) -> Iterator[Envelope]:
        markers = self._log.markers
        while self._marker < len(markers) and markers[self._marker].seq <= committed:
            marked = markers[self._marker]
            marker = marked.marker
            yield from self._texts(marked.seq, everything=isinstance(marker, End))
            self._marker += 1
            if isinstance(marker, End):
                self.ended = True
                marker = self._shown(marker)
            self.cursor = self._cursor()
            yield Envelope(marker, self.cursor, marked.at_ms)
            if self._log.dropped:
                raise _dropped()
        yield from self._texts(committed + 1)

    def _texts(self, before: int, *, everything: bool = False) -> Iterator[Envelope]:
        """Sends what the channels may send of the events numbered below `before`."""
        for position in self._positions:
            log = position.log
            if before > self._log.head:
                written = len(log.text)
            else:
                count = bisect_left(log.seqs, before, position.events)
                written = log.ends[count - 1] if count else 0
            if written <= position.sent:
                continue
            until = written if everything else position.buffer.cut(log.text, position.sent, written)
            while position.sent < until:
                stop = until
                most = stop if not log.logprobs else _logprobs_end(position, stop)
                if most - position.sent > MAX_TEXT_BYTES:
                    most = code_point_start(log.text, position.sent + MAX_TEXT_BYTES)
                if most < stop:
                    stop = position.buffer.cut(log.text, position.sent, most)
                    if stop == position.sent:
                        # One piece is longer than a whole message.
                        stop = most
                yield self._delta(position, stop)
                if self._log.dropped:
                    raise _dropped()

    def _delta(self, position: _Position, stop: int) -> Envelope:
        log, first = position.log, position.events
        text = log.text[position.sent : stop].decode()
        count = bisect_right(log.ends, stop, first) if stop < log.ends[-1] else len(log.ends)
        tokens = log.tokens
        token_offset = tokens[first - 1] if first else 0
        token_end = tokens[count - 1] if count else 0
        ids = log.token_ids[token_offset:token_end] if self._token_ids else ()
        logprobs = (
            tuple(one for event in range(first, count) for one in log.logprobs.get(event, ())) if log.logprobs else ()
        )
        delta = Delta(
            channel=log.channel,
            text=text,
            byte_offset=position.sent,
            token_offset=token_offset,
            token_count=token_end - token_offset,
            token_ids=() if UNKNOWN_ID in ids else tuple(ids),
            logprobs=logprobs,
        )
        # The message is as old as the event that holds its last byte.
        at_ms = log.at_ms[bisect_left(log.ends, stop, first)]
        position.sent, position.events = stop, count
        self.cursor = self._cursor()
        return Envelope(delta, self.cursor, at_ms)

    def _cursor(self) -> Cursor:
        # As of `take`: what came later may be in channels that are not open yet.
        log, committed = self._log, self._seen
        open_from = committed + 1
        if self._marker < len(log.markers):
            open_from = min(open_from, log.markers[self._marker].seq)
        for position in self._positions:
            seqs = position.log.seqs
            if position.events < len(seqs) and seqs[position.events] < open_from:
                open_from = seqs[position.events]
        seq = open_from - 1
        if seq == committed:
            return Cursor(seq, (), log.epoch)
        ahead = [
            (position.log.channel, position.sent)
            for position in self._positions
            if position.sent > position.log.consumed_at(seq)[1]
        ]
        return Cursor(seq, tuple(sorted(ahead)), log.epoch)

    def _open_channels(self) -> None:
        """Takes up channels that were written to since the last look."""
        ahead = dict(self._after.ahead)
        for log in self._log.channels[len(self._positions) :]:
            events, sent = log.consumed_at(self._after.seq)
            further = ahead.get(log.channel, 0)
            if further > sent:
                sent = further
                events = bisect_right(log.ends, sent)
            buffer = self._buffer(log.channel.kind)
            self._positions.append(_Position(log, buffer, events, sent, token_ids=self._token_ids))

    def _buffer(self, kind: ChannelKind) -> Buffer:
        chosen = self._delivery.buffering
        default = UNBUFFERED if kind is ChannelKind.TOOL_CALL else chosen.get(ChannelKind.TEXT, UNBUFFERED)
        buffering = chosen.get(kind, default)
        if buffering.mode is BufferingMode.SIZE:
            return SizeBuffer(buffering.size or DEFAULT_SIZE)
        return NoBuffer()

    def _shown(self, end: End) -> End:
        """Fills in what this reader asked for, and leaves out what it did not."""
        if not self._token_ids:
            end = replace(end, choices=tuple(_without_ids(one) for one in end.choices))
        if self._full_text:
            logs = [self._log.channel(one.channel) for one in end.channels]
            end = replace(end, texts=tuple(log.text.decode() if log else "" for log in logs))
        return end


def _logprobs_end(position: _Position, stop: int) -> int:
    """Returns where a message that begins at a position must end at the latest, for its log probabilities."""
    log, first = position.log, position.events
    total = 0
    for event in range(first, bisect_right(log.ends, stop, first)):
        total += entries(log.logprobs.get(event, ()))
        if total > MAX_LOGPROBS and event > first:
            return log.ends[event - 1]
    return stop


def _without_ids(end: ChoiceEnd) -> ChoiceEnd:
    told = (replace(one, token_ids=()) for one in end.trailing if one.logprobs)
    return replace(end, trailing=tuple(told))


DEFAULT_SIZE = 64
_MODES = (BufferingMode.NONE, BufferingMode.SIZE)


def check_delivery(delivery: Delivery) -> None:
    """Refuses what this version does not have, by name."""
    for name in delivery.unknown:
        raise InvalidRequestError(f"delivery.{name}", "is not in this version", reason="FEATURE_UNSUPPORTED")
    for kind, buffering in delivery.buffering.items():
        field = _FIELDS[kind]
        if buffering.mode not in _MODES:
            raise InvalidRequestError(
                f"{field}.mode",
                f"{buffering.mode.name} is not in this version; NONE and SIZE are",
                reason="FEATURE_UNSUPPORTED",
            )
        if buffering.max_hold_ms:
            raise InvalidRequestError(f"{field}.max_hold_ms", "is not in this version", reason="FEATURE_UNSUPPORTED")


_FIELDS = {
    ChannelKind.TEXT: "delivery.buffering",
    ChannelKind.REASONING: "delivery.reasoning_buffering",
    ChannelKind.TOOL_CALL: "delivery.tool_call_buffering",
}


def _dropped() -> TokenwireError:
    return TokenwireError(Code.OUT_OF_RANGE, "TEXT_DROPPED", "the text of this run was given up under memory pressure")


# The first writer of a run; those that take over have larger numbers.
FIRST_EPOCH = 1


def _check(log: RunLog, after: Cursor) -> None:
    if log.dropped:
        return
    known = after.epoch is not None and log.epoch is not None
    if known:
        _check_epoch(log, after)
    if after.seq > log.committed:
        raise _behind() if known else InvalidRequestError("after.seq", "is past the run", reason="CURSOR_AHEAD")
    for channel, offset in after.ahead:
        channel_log = log.channel(channel)
        if channel_log is None or offset > _written(log, channel_log):
            if known:
                raise _behind()
            raise InvalidRequestError("after.ahead.byte_offset", "is past the run", reason="CURSOR_AHEAD")
        if not channel_log.is_boundary(offset):
            raise InvalidRequestError("after.ahead.byte_offset", "is inside a character", reason="CURSOR_INVALID")


def _check_epoch(log: RunLog, after: Cursor) -> None:
    """Holds a cursor against the run's writers (docs/model): what one of them showed may have been lost with it."""
    assert after.epoch is not None
    assert log.epoch is not None
    if after.epoch > log.epoch:
        raise _behind()
    if after.epoch < log.epoch and after.epoch not in (FIRST_EPOCH, *(epoch for epoch, _ in log.takeovers)):
        raise _lost()
    if any(after.epoch < epoch and _beyond(log, after, head) for epoch, head in log.takeovers):
        raise _lost()


def _behind() -> TokenwireError:
    """What this process knows of the run is older than what the reader has: another one, or a moment later, knows."""
    return TokenwireError(
        Code.UNAVAILABLE,
        "JOURNAL_BEHIND",
        "this server does not know the run as far as it was read yet",
        retryable=True,
        retry_after=0.1,
    )


def _lost() -> TokenwireError:
    return TokenwireError(
        Code.DATA_LOSS,
        "JOURNAL_LOST",
        "the end of what was read was lost with the journal and the writer; the run went on without it",
    )


def _beyond(log: RunLog, after: Cursor, head: int) -> bool:
    """Whether a cursor lies beyond the event numbered `head`."""
    if after.seq > head:
        return True
    channels = ((log.channel(channel), offset) for channel, offset in after.ahead)
    return any(found is None or offset > found.consumed_at(head)[1] for found, offset in channels)


def _written(log: RunLog, channel: ChannelLog) -> int:
    return len(channel.text) if log.committed == log.head else channel.consumed_at(log.committed)[1]
