"""Events as bytes: those that a run's log got since the last time make one frame.

A frame is a MessagePack array. Most hold one piece of text, as an engine sends them one by one, and are laid out for
that; the others hold texts by channel as columns, as the log does, so that neither side handles one token at a time.
Offsets are those of the log, from its begin: what does not fit to the log is noticed.
"""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, islice, pairwise, takewhile
from typing import Annotated, Any, cast

import msgspec

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import (
    ChoiceEnd,
    Dispatched,
    End,
    Marker,
    PromptTokens,
    Start,
    TokenLogprob,
    ToolCallHead,
    UsageUpdate,
)
from tokenwire.journal.log import ChannelLog, RunLog
from tokenwire.journal.record import DamagedError

# The places are the numbers on the wire: new kinds go to the end.
_KINDS: tuple[type[Any], ...] = (Start, Dispatched, ToolCallHead, UsageUpdate, PromptTokens, End)
_PIECE, _EVENTS = 0, 1
_REFUSALS = (msgspec.MsgspecError, ValueError, IndexError, RecursionError)
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class _Piece(msgspec.Struct, array_like=True, tag=_PIECE, gc=False):
    """One piece of text without log probabilities: where it ends, and after how many tokens, counted from the begin.

    The id of a single token is no list: a restart reads millions, and the garbage collector looks at every list.
    """

    seq: _Number
    choice: _Number
    kind: ChannelKind
    index: _Number
    end: _Number
    tokens: _Number
    at_ms: _Number
    text: bytes
    token_ids: _Number | list[_Number]

    @property
    def ids(self) -> list[int]:
        return [self.token_ids] if isinstance(self.token_ids, int) else self.token_ids


class _Marked(msgspec.Struct, array_like=True):
    seq: _Number
    at_ms: _Number
    kind: _Number
    event: msgspec.Raw


class _Texts(msgspec.Struct, array_like=True):
    """Events of one channel; columns of 32-bit numbers, least significant byte first."""

    choice: _Number
    kind: ChannelKind
    index: _Number
    text: bytes
    seqs: bytes
    ends: bytes
    tokens: bytes
    at_ms: bytes
    token_ids: bytes
    logprobs: dict[_Number, tuple[TokenLogprob, ...]]


class _Events(msgspec.Struct, array_like=True, tag=_EVENTS):
    """Any events. Of a run whose text was given up there are the markers alone, and `gaps` is true."""

    first: _Number
    last: _Number
    gaps: bool
    markers: list[_Marked]
    texts: list[_Texts]
    choice_ends: list[ChoiceEnd]


def encode_frame(log: RunLog, after: int, told: int = 0) -> bytes:
    """Returns the events numbered above `after`, and how choices ended.

    Args:
        log: the run's.
        after: the last event of the frame before; 0: there is none.
        told: how many choices had ended in that one; they are left out.
    """
    if len(log.choice_ends) == told and (not log.markers or log.markers[-1].seq <= after):
        for channel in log.channels:
            seqs = channel.seqs
            if seqs[-1] == after + 1 == log.head:
                last = len(seqs) - 1
                if last in channel.logprobs:
                    break
                choice, kind, index = channel.channel
                ids = channel.token_ids
                start, counted = (channel.ends[last - 1], channel.tokens[last - 1]) if last else (0, 0)
                return _encoder.encode(
                    (
                        _PIECE,
                        log.head,
                        choice,
                        kind,
                        index,
                        channel.ends[last],
                        channel.tokens[last],
                        channel.at_ms[last],
                        channel.text[start:],
                        ids[counted] if len(ids) - counted == 1 else ids[counted:].tolist(),
                    )
                )
    return _encode_events(log, after, told)


def apply_frame(log: RunLog, data: bytes | memoryview) -> None:
    """Appends a frame's events to a log, without waking anybody.

    Raises DamagedError if they cannot be read, or do not follow the log's last one; the log is then as it was.
    """
    try:
        frame = _decoder.decode(data)
        _apply(log, frame)
    except _REFUSALS as error:
        raise DamagedError("a frame cannot be read, or does not follow the one before") from error


def apply_frames(log: RunLog, frames: Sequence[bytes]) -> None:
    """Appends the events of many frames, one after the other, much faster than one by one.

    Raises DamagedError at the first that cannot be read or does not follow; those before it are then in the log.
    """
    done = 0
    try:
        many = _many.decode(b"".join((b"\xdd", len(frames).to_bytes(4, "big"), *frames)))
        while done < len(many):
            alike = cast("list[_Piece]", list(takewhile(_is_piece, islice(many, done, None))))
            if len({(one.choice, one.kind, one.index) for one in alike}) == 1 and not (log.closed or log.dropped):
                _apply_pieces(log, alike)
                done += len(alike)
            else:
                for frame in alike or many[done : done + 1]:
                    _apply(log, frame)
                    done += 1
    except _REFUSALS:
        # One by one it shows which of them it is.
        for data in frames[done:]:
            apply_frame(log, data)


def _encode_events(log: RunLog, after: int, told: int) -> bytes:
    markers = []
    for marked in reversed(log.markers):
        if marked.seq <= after:
            break
        kind = _KINDS.index(type(marked.marker))
        markers.append((marked.seq, marked.at_ms, kind, marked.marker))
    markers.reverse()
    texts = [_columns(channel, after) for channel in log.channels if channel.seqs[-1] > after]
    ends = list(islice(log.choice_ends.values(), told, None))
    return _encoder.encode((_EVENTS, after + 1, log.head, log.dropped, markers, texts, ends))


def _columns(channel: ChannelLog, after: int) -> tuple[Any, ...]:
    first = bisect_right(channel.seqs, after) if after else 0
    start, counted = (channel.ends[first - 1], channel.tokens[first - 1]) if first else (0, 0)
    told = channel.logprobs
    return (
        *channel.channel,
        channel.text[start:],
        _bytes(channel.seqs[first:]),
        _bytes(channel.ends[first:]),
        _bytes(channel.tokens[first:]),
        _bytes(channel.at_ms[first:]),
        _bytes(channel.token_ids[counted:]),
        {one - first: told[one] for one in range(first, len(channel.seqs)) if one in told} if told else {},
    )


def _apply(log: RunLog, frame: "_Piece | _Events") -> None:
    if log.closed or log.dropped:
        raise ValueError("nothing can follow")
    if isinstance(frame, _Piece):
        _apply_piece(log, frame)
    else:
        _apply_events(log, frame)


def _apply_piece(log: RunLog, piece: _Piece) -> None:
    channel = Channel(piece.choice, piece.kind, piece.index)
    before = log.channel(channel)
    start, counted = (before.ends[-1], before.tokens[-1]) if before else (0, 0)
    if piece.seq != log.head + 1 or piece.end != start + len(piece.text):
        raise ValueError("it does not follow")
    ids = piece.ids
    if piece.tokens != counted + len(ids):
        raise ValueError("tokens are missing")
    log.append_text(channel, piece.text.decode(), piece.at_ms, ids, len(ids))


def _is_piece(frame: "_Piece | _Events") -> bool:
    return type(frame) is _Piece


def _apply_pieces(log: RunLog, pieces: Sequence[_Piece]) -> None:
    """Appends pieces of one channel."""
    channel = Channel(pieces[0].choice, pieces[0].kind, pieces[0].index)
    before = log.channel(channel)
    start, counted = (before.ends[-1], before.tokens[-1]) if before else (0, 0)
    texts, told = [piece.text for piece in pieces], [piece.token_ids for piece in pieces]
    if set(map(type, told)) == {int}:
        ids, counts = cast("list[int]", told), [1] * len(told)
    else:
        ids, counts = list(chain.from_iterable(piece.ids for piece in pieces)), [len(piece.ids) for piece in pieces]
    seqs = [piece.seq for piece in pieces]
    ends, tokens = list(accumulate(map(len, texts))), list(accumulate(counts))
    if seqs != list(range(log.head + 1, log.head + 1 + len(pieces))):
        raise ValueError("it does not follow")
    if [piece.end for piece in pieces] != [start + end for end in ends]:
        raise ValueError("text is missing")
    if [piece.tokens for piece in pieces] != [counted + count for count in tokens]:
        raise ValueError("tokens are missing")
    for text in texts:
        text.decode()
    log.add_texts(
        channel,
        b"".join(texts),
        seqs=seqs,
        ends=ends,
        tokens=tokens,
        at_ms=[piece.at_ms for piece in pieces],
        token_ids=ids,
        logprobs={},
    )
    log.head = seqs[-1]


def _apply_events(log: RunLog, frame: _Events) -> None:
    markers: list[tuple[int, int, Marker]] = [
        (one.seq, one.at_ms, _decoders[one.kind].decode(one.event)) for one in frame.markers
    ]
    numbers = [seq for seq, _, _ in markers]
    if numbers != sorted(numbers) or any(isinstance(one, End) and seq != frame.last for seq, _, one in markers):
        raise ValueError("markers are out of order")
    columns = [_Columns(log, texts) for texts in frame.texts]
    if len({one.channel for one in columns}) != len(columns):
        raise ValueError("a channel is there twice")
    for one in columns:
        numbers += one.seqs
    numbers.sort()
    if frame.first != log.head + 1 or (frame.gaps and (columns or log.head)):
        raise ValueError("it does not follow")
    if frame.gaps:
        # Without their texts, the numbers of a run have gaps.
        whole = len(set(numbers)) == len(numbers) and all(0 < number <= frame.last for number in numbers)
    else:
        whole = numbers == list(range(frame.first, frame.last + 1))
    if not whole:
        raise ValueError("events are missing")
    for one in columns:
        one.add_to(log)
    for seq, at_ms, marker in markers:
        log.head = seq - 1
        log.add(marker, at_ms)
    log.head = frame.last
    log.dropped = frame.gaps
    for end in frame.choice_ends:
        log.note_end(end)


class _Columns:
    """A channel's events, checked against the log that they are for."""

    def __init__(self, log: RunLog, texts: _Texts) -> None:
        self.channel = Channel(texts.choice, texts.kind, texts.index)
        self.seqs, self.token_ids = _numbers(texts.seqs), _numbers(texts.token_ids)
        self._text, self._logprobs, self._at_ms = texts.text, texts.logprobs, _numbers(texts.at_ms)
        before = log.channel(self.channel)
        start, counted = (before.ends[-1], before.tokens[-1]) if before else (0, 0)
        ends, tokens = _numbers(texts.ends), _numbers(texts.tokens)
        if not len(self.seqs) == len(ends) == len(tokens) == len(self._at_ms) > 0:
            raise ValueError("columns differ in length")
        if ends[-1] != start + len(texts.text) or tokens[-1] != counted + len(self.token_ids):
            raise ValueError("text or tokens are missing")
        self._ends, self._tokens = [end - start for end in ends], [count - counted for count in tokens]
        if not (_grows(self._ends) and _grows(self._tokens) and all(at < len(ends) for at in texts.logprobs)):
            raise ValueError("events are out of order")
        texts.text.decode()
        if any(texts.text[end] & 0xC0 == 0x80 for end in self._ends if end < len(texts.text)):
            raise ValueError("an event ends inside a code point")

    def add_to(self, log: RunLog) -> None:
        log.add_texts(
            self.channel,
            self._text,
            seqs=self.seqs,
            ends=self._ends,
            tokens=self._tokens,
            at_ms=self._at_ms,
            token_ids=self.token_ids,
            logprobs=self._logprobs,
        )


def _grows(numbers: list[int]) -> bool:
    return numbers[0] >= 0 and all(one <= two for one, two in pairwise(numbers))


def _bytes(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _numbers(data: bytes) -> "array[int]":
    numbers = array("I")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Piece | _Events)
_many = msgspec.msgpack.Decoder(list[_Piece | _Events])
_decoders = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
