"""Entries are read back as they were written, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.journal.file.entries import (
    FRAME_TAG,
    HEADER_BYTES,
    VERSION,
    Entries,
    ForgottenOp,
    FrameOp,
    Op,
    RunOp,
    SettledOp,
    TakenOverOp,
    UnknownVersionError,
    Written,
    read_header,
)
from tokenwire.journal.record import DamagedError

SALT = b"\x01\x02\x03\x04\x05\x06\x07\x08"
_numbers = st.integers(1, 2**40)
_frames = st.binary(max_size=20)
_ops = st.one_of(
    st.builds(
        RunOp,
        number=_numbers,
        record=_frames,
        epoch=_numbers,
        takeovers=st.lists(st.tuples(_numbers, _numbers), max_size=2),
        frame=_frames,
        ended_at=st.none() | st.floats(0, 1e10),
    ),
    st.builds(FrameOp, number=_numbers, frame=_frames),
    st.builds(TakenOverOp, number=_numbers, epoch=_numbers, head=_numbers),
    st.builds(SettledOp, number=_numbers, head=_numbers, ended_at=st.floats(0, 1e10)),
    st.builds(ForgottenOp, numbers=st.lists(_numbers, max_size=3)),
)
_turns = st.lists(st.lists(_ops, min_size=1, max_size=3), max_size=4)


def segment(turns: list[list[Op]], salt: bytes = SALT) -> tuple[bytes, list[int]]:
    """A segment, and where its entries end."""
    entries = Entries(salt, None)
    data, ends = entries.header(), []
    for ops in turns:
        data += entries.pack(list(ops))
        ends.append(len(data))
    return data, ends


@given(_turns)
def test_what_was_packed_is_read_in_its_order(turns: list[list[Op]]) -> None:
    data, ends = segment(turns)
    assert read_header(data) == (SALT, False)
    assert list(Entries(SALT, None).read(data)) == list(zip(ends, turns, strict=True))


def test_a_frame_needs_no_object() -> None:
    written: list[Written] = [(FRAME_TAG, 7, b"frame")]
    ((_, ops),) = Entries(SALT, None).read(bytes(HEADER_BYTES) + Entries(SALT, None).pack(written))
    assert ops == [FrameOp(7, b"frame")]


@given(_turns, st.data())
def test_a_segment_that_was_cut_ends_with_its_last_whole_entry(turns: list[list[Op]], data: st.DataObject) -> None:
    whole, ends = segment(turns)
    at = data.draw(st.integers(HEADER_BYTES, len(whole)))
    found = list(Entries(SALT, None).read(whole[:at]))
    good = [(end, ops) for end, ops in zip(ends, turns, strict=True) if end <= at]
    assert found[: len(good)] == good
    assert found[len(good) :] == ([] if at in (HEADER_BYTES, *ends) else [(at, None)])


@given(_turns, st.data())
def test_a_changed_byte_costs_its_own_entry_alone(turns: list[list[Op]], data: st.DataObject) -> None:
    whole, ends = segment(turns)
    if not ends:
        return
    damaged = bytearray(whole)
    at = data.draw(st.integers(HEADER_BYTES, len(whole) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    hit = next(place for place, end in enumerate(ends) if at < end)
    found = [(end, ops) for end, ops in Entries(SALT, None).read(bytes(damaged)) if ops is not None]
    assert found == [one for place, one in enumerate(zip(ends, turns, strict=True)) if place != hit]


@given(st.binary(max_size=200))
def test_of_any_bytes_nothing_is_read(data: bytes) -> None:
    assert all(ops is None for _, ops in Entries(SALT, None).read(bytes(HEADER_BYTES) + data))


def test_what_another_segment_left_on_the_disk_is_not_read() -> None:
    other, _ = segment([[ForgottenOp([1])]], salt=b"otherone")
    data, ends = segment([[ForgottenOp([2])]])
    found = list(Entries(SALT, None).read(data + other[HEADER_BYTES:]))
    assert found == [(ends[0], [ForgottenOp([2])]), (len(data + other) - HEADER_BYTES, None)]


def test_text_that_looks_like_an_entry_is_none_even_if_what_is_around_it_is_damaged() -> None:
    # Who sends a prompt cannot know the salt.
    inner = bytes(Entries(b"guessed!", None).pack([ForgottenOp([1])]))
    data, ends = segment([[FrameOp(1, inner)], [ForgottenOp([2])]])
    damaged = bytearray(data)
    damaged[HEADER_BYTES] ^= 1
    assert list(Entries(SALT, None).read(bytes(damaged))) == [(ends[0], None), (ends[1], [ForgottenOp([2])])]


@given(st.data())
def test_a_changed_header_is_not_trusted(data: st.DataObject) -> None:
    header = bytearray(Entries(SALT, None).header())
    header[data.draw(st.integers(0, len(header) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedError):
        read_header(bytes(header))


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_a_header_that_was_cut_is_not_trusted(size: int) -> None:
    with pytest.raises(DamagedError):
        read_header(Entries(SALT, None).header()[:size])


def test_a_later_version_is_told_apart_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenwire.journal.file.entries.VERSION", VERSION + 1)
    later = Entries(SALT, None).header()
    monkeypatch.undo()
    with pytest.raises(UnknownVersionError):
        read_header(later[:16] + bytes(HEADER_BYTES))
