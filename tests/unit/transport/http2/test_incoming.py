"""Messages out of bytes, however those come."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.http2.incoming import Incoming

MAX_BYTES = 300


def framed(data: bytes, flag: int = 0) -> bytes:
    """Puts the prefix before a message."""
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


def cuts(data: bytes, at: list[int]) -> list[bytes]:
    """Cuts data at some places, anywhere."""
    places = sorted({one % (len(data) + 1) for one in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.booleans())),
    st.lists(st.integers(min_value=0, max_value=4000)),
    st.sampled_from(["gzip", "deflate"]),
)
def test_messages_are_the_same_however_their_bytes_are_cut(
    sent: list[tuple[bytes, bool]], at: list[int], encoding: str
) -> None:
    body = b"".join(framed(PACK[encoding](one), 1) if packed else framed(one) for one, packed in sent)
    incoming = Incoming(MAX_BYTES, encoding)
    found = [message for part in cuts(body, at) for message in incoming.take(part)]
    assert found == [one for one, _ in sent]
    assert not incoming.cut


@given(st.binary(max_size=200), st.data())
def test_a_message_that_has_begun_is_cut_until_its_last_byte(message: bytes, data: st.DataObject) -> None:
    body = framed(b"before") + framed(message)
    at = data.draw(st.integers(min_value=len(framed(b"before")) + 1, max_value=len(body) - 1))
    incoming = Incoming(MAX_BYTES, "")
    assert incoming.take(body[:at]) == [b"before"]
    assert incoming.cut
    assert incoming.take(body[at:]) == [message]
    assert not incoming.cut


def test_a_message_comes_with_its_last_byte_and_not_before() -> None:
    incoming = Incoming(MAX_BYTES, "")
    body = framed(b"message")
    for one in body[:-1]:
        assert incoming.take(bytes([one])) == []
    assert incoming.take(body[-1:]) == [b"message"]


@pytest.mark.parametrize("size", [0, 1, MAX_BYTES])
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_a_message_of_the_largest_size_is_taken(size: int, encoding: str) -> None:
    message = bytes(size)
    body = framed(PACK[encoding](message), 1) if encoding else framed(message)
    assert Incoming(MAX_BYTES, encoding).take(body) == [message]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (framed(bytes(MAX_BYTES + 1))[:5], ""),
        (b"\x00\xff\xff\xff\xff", ""),
        (framed(gzip.compress(bytes(MAX_BYTES + 1)), 1), "gzip"),
        (framed(zlib.compress(bytes(MAX_BYTES + 1)), 1), "deflate"),
        (framed(gzip.compress(bytes(100_000)), 1), "gzip"),
    ],
    ids=["by one", "4 GiB", "gzip by one", "deflate by one", "a bomb"],
)
def test_a_message_beyond_the_largest_size_is_refused_by_what_it_says_or_becomes(body: bytes, encoding: str) -> None:
    with pytest.raises(TokenwireError) as caught:
        Incoming(MAX_BYTES, encoding).take(body)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert caught.value.metadata["limit"] == str(MAX_BYTES)


def test_a_bomb_is_never_unpacked_further_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched:
        def __init__(self, window: int) -> None:
            self._real = zlib.decompressobj(window)

        def decompress(self, data: bytes, size: int) -> bytes:
            asked.append(size)
            return self._real.decompress(data, size)

    bomb = framed(gzip.compress(bytes(200_000)), 1)
    monkeypatch.setattr("tokenwire.transport.http2.incoming.zlib", type("Z", (), {"decompressobj": Watched}))
    monkeypatch.setattr("tokenwire.transport.http2.incoming.zlib.error", zlib.error, raising=False)
    with pytest.raises(TokenwireError):
        Incoming(MAX_BYTES, "gzip").take(bomb)
    assert asked == [MAX_BYTES + 1]


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (framed(b"x", 1), "", Code.INTERNAL),
        (framed(b"x", 1), "identity", Code.INTERNAL),
        (framed(b"x", 1), "br", Code.UNIMPLEMENTED),
        (framed(b"not packed", 1), "gzip", Code.INTERNAL),
        (framed(b"", 1), "gzip", Code.INTERNAL),
        (framed(gzip.compress(b"text")[:-1], 1), "gzip", Code.INTERNAL),
        (framed(zlib.compress(b"text")[:-4], 1), "deflate", Code.INTERNAL),
        (framed(gzip.compress(b"text"), 1), "deflate", Code.INTERNAL),
    ],
    ids=["no encoding", "identity", "unknown", "noise", "empty", "cut gzip", "cut deflate", "the other one"],
)
def test_what_is_not_compressed_as_it_says_is_refused_without_a_word_of_it(
    body: bytes, encoding: str, code: Code
) -> None:
    with pytest.raises(TokenwireError) as caught:
        Incoming(MAX_BYTES, encoding).take(body)
    assert caught.value.code is code
    assert "packed" not in caught.value.message
    assert "text" not in caught.value.message


@given(st.binary(max_size=600), st.sampled_from(["", "gzip", "deflate", "br"]), st.lists(st.integers(0, 600)))
def test_noise_gives_messages_or_an_error_and_nothing_else(noise: bytes, encoding: str, at: list[int]) -> None:
    incoming = Incoming(MAX_BYTES, encoding)
    try:
        for part in cuts(noise, at):
            assert all(len(message) <= MAX_BYTES for message in incoming.take(part))
    except TokenwireError:
        pass
