"""Bytes in any cut become whole events, and whole lines."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenwire.domain.errors import EngineError
from tokenwire.engines.framing import MAX_EVENT_BYTES, EventSplitter, LineSplitter

# Text without line ends; the rest of what matters is how a line begins.
_VALUES = st.binary(max_size=30).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))
_LINES = st.one_of(
    _VALUES.map(lambda value: b"data: " + value),
    _VALUES.map(lambda value: b"data:" + value),
    _VALUES.map(lambda value: b": " + value),
    st.sampled_from([b"", b"event: token", b"id: 7", b"retry: 10", b"data", b"datum: x", b"data: [DONE]"]),
)
_STREAMS = st.lists(st.tuples(_LINES, st.sampled_from([b"\n", b"\r\n"])), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def _split(chunks: list[bytes]) -> tuple[list[bytes], bool]:
    splitter = EventSplitter()
    payloads = [payload for chunk in chunks for payload in splitter.feed(chunk)]
    return payloads, splitter.unfinished


def _expected(stream: bytes) -> list[bytes]:
    """Returns the payloads by the standard's own words, line by line."""
    payloads: list[bytes] = []
    data: list[bytes] = []
    for line in stream.replace(b"\r\n", b"\n").split(b"\n")[:-1]:
        if line == b"" and data:
            payloads.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
    return payloads


@settings(deadline=None)
@given(stream=_STREAMS, tail=_VALUES, cuts=st.lists(st.integers(0, 2000), max_size=20))
@example(stream=b"data: a\r\n\r\ndata: b\n\n", tail=b"", cuts=[8])
@example(stream=b"data: \n\n", tail=b"", cuts=[])
@example(stream=b"data: a\n\ndata: b\n\ndata: \n\n", tail=b"", cuts=[])
@example(stream=b"data: a\n\ndata: b\ndata: c\n\n", tail=b"", cuts=[])
@example(stream=b"data: a\n\n: b\n\ndata: c\n\n", tail=b"", cuts=[])
def test_any_cut_of_the_bytes_gives_the_payloads_of_the_standard(stream: bytes, tail: bytes, cuts: list[int]) -> None:
    whole = stream + tail
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(places)]
    assert _split(chunks)[0] == _expected(whole)
    assert _split([whole])[0] == _expected(whole)
    assert _split([whole[at : at + 1] for at in range(len(whole))])[0] == _expected(whole)


def test_several_data_lines_are_one_payload() -> None:
    assert _split([b"data: a\ndata:b\ndata:  c\n\n"])[0] == [b"a\nb\n c"]


def test_comments_and_other_fields_are_skipped() -> None:
    assert _split([b": ping\n\nevent: x\nid: 1\ndata: a\nretry: 5\n\n"])[0] == [b"a"]


@pytest.mark.parametrize("stream", [b"data: a", b"data: a\n", b"data: a\r\n\r", b"data: a\n\ndata: b\n", b": pin"])
def test_an_event_without_its_empty_line_is_unfinished(stream: bytes) -> None:
    payloads, unfinished = _split([stream])
    assert unfinished
    assert payloads == _expected(stream)


@pytest.mark.parametrize("stream", [b"", b"data: a\n\n", b": ping\n\n", b"event: x\n"])
def test_a_stream_between_events_is_not_unfinished(stream: bytes) -> None:
    assert not _split([stream])[1]


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: " + b"x" * 65536 + b"\n", b"data:\n" * 10000])
def test_an_event_without_end_is_refused_before_it_fills_the_memory(piece: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        _split([piece] * (2 * MAX_EVENT_BYTES // len(piece)))
    assert caught.value.reason == "UPSTREAM_PROTOCOL"


def test_a_long_event_in_small_reads_is_whole() -> None:
    payload = b"x" * (4 * 1024 * 1024)
    stream = b"data: " + payload + b"\n\n"
    assert _split([stream[at : at + 256] for at in range(0, len(stream), 256)])[0] == [payload]


_LINE = st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))


@settings(deadline=None)
@given(lines=st.lists(_LINE, max_size=20), tail=_LINE, cuts=st.lists(st.integers(0, 500), max_size=20))
def test_any_cut_of_the_bytes_gives_the_lines_that_have_something_in_them(
    lines: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    whole = b"".join(line + b"\n" for line in lines) + tail
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    splitter = LineSplitter()
    found = [line for start, stop in pairwise(places) for line in splitter.feed(whole[start:stop])]
    assert found == [line for line in lines if line.strip()]
    assert splitter.unfinished == bool(tail)


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    splitter = LineSplitter()
    for _ in range(MAX_EVENT_BYTES // 65536):
        splitter.feed(b"x" * 65536)
    with pytest.raises(EngineError) as caught:
        splitter.feed(b"x")
    assert caught.value.reason == "UPSTREAM_PROTOCOL"
