"""What requests' headers say, and how calls' statuses are written."""

import base64
from urllib.parse import unquote

import pytest
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import Code
from tokenwire.transport.http2.headers import METADATA_MAX_BYTES, OK, RESPONSE, Head, read_head, trailers
from tokenwire.transport.methods import Status

PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"test")]


def head(*headers: tuple[bytes, bytes]) -> Head:
    """Reads a request's headers."""
    return read_head([*PSEUDO, *headers])


def written(message: str, details: bytes = b"", code: Code = Code.NOT_FOUND) -> dict[bytes, bytes]:
    """Writes a status."""
    return dict(trailers(Status(code=code, message=message, details=details)))


def test_the_method_and_the_path_are_no_metadata() -> None:
    found = head((b"x-one", b"1"))
    assert (found.http_method, found.path, found.metadata) == (b"POST", "/a.B/C", {"x-one": "1"})
    assert (found.timeout, found.broken, found.too_large, found.encoding) == (None, False, False, "")


def test_the_last_value_of_a_key_counts_and_binary_ones_are_left_out() -> None:
    found = head((b"x-two", b"first"), (b"x-data-bin", b"AAH/"), (b"x-two", b"last"))
    assert found.metadata == {"x-two": "last"}


def test_a_value_that_is_no_text_is_left_out_and_those_beside_it_are_not() -> None:
    assert head((b"x-bad", b"\xff\xfe"), (b"x-good", "ä".encode())).metadata == {"x-good": "ä"}


def test_a_path_may_be_any_bytes() -> None:
    assert read_head([(b":method", b"GET"), (b":path", b"/\xff")]).path == "/\xff"


@pytest.mark.parametrize(("over", "too_large"), [(0, False), (1, True)])
def test_16_kib_of_headers_are_not_too_large_and_one_byte_more_is(over: int, too_large: bool) -> None:
    room = METADATA_MAX_BYTES - sum(len(name) + len(value) + 32 for name, value in PSEUDO) - len(b"x-large") - 32
    assert head((b"x-large", b"x" * (room + over))).too_large is too_large


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"30S", 30.0),
        (b"1500m", 1.5),
        (b"2000000u", 2.0),
        (b"99999999n", 0.099999999),
        (b"0S", 0.0),
        (b"00000001S", 1.0),
        (b"99999999H", 359999996400.0),
    ],
)
def test_a_timeout_has_a_unit(text: bytes, seconds: float) -> None:
    found = head((b"grpc-timeout", text))
    assert found.timeout == pytest.approx(seconds)
    assert not found.broken


@pytest.mark.parametrize(
    "text",
    [b"", b"S", b"1", b"1s", b"-1S", b"+1S", b"1.5S", b"1 S", b"123456789S", b"1SS", b"\xc2\xb9S"],
)
def test_a_timeout_that_is_none_is_broken(text: bytes) -> None:
    found = head((b"grpc-timeout", text))
    assert (found.timeout, found.broken) == (None, True)


@given(st.text())
def test_any_message_comes_back_as_it_was(message: str) -> None:
    # Half a pair is no character, and so is in no message.
    message = message.encode(errors="ignore").decode()
    sent = written(message)[b"grpc-message"]
    assert unquote(sent.decode("ascii"), errors="strict") == message
    assert all(0x20 <= byte < 0x7F for byte in sent)


def test_messages_stay_readable() -> None:
    assert written("it is 100% (a, b) ~é")[b"grpc-message"] == b"it is 100%25 (a, b) ~%C3%A9"


@given(st.binary(max_size=100))
def test_details_are_binary_without_padding(details: bytes) -> None:
    sent = written("", details)[b"grpc-status-details-bin"]
    assert b"=" not in sent
    assert base64.b64decode(sent + b"=" * (-len(sent) % 4), validate=True) == details


@pytest.mark.parametrize("code", list(Code))
def test_the_code_is_its_number(code: Code) -> None:
    assert written("", code=code)[b"grpc-status"] == str(int(code)).encode()


def test_what_each_status_has_for_itself_stays_out_of_the_compressions_table() -> None:
    encoder = Encoder()
    encoder.encode([*RESPONSE, *OK])
    before = len(encoder.header_table.dynamic_entries)
    for number in range(50):
        told = trailers(Status(code=Code.NOT_FOUND, message=f"number {number}", details=bytes([number])))
        assert [type(one) for one in told[1:]] == [NeverIndexedHeaderTuple] * 2
        encoder.encode([HeaderTuple(*one) if type(one) is tuple else one for one in told])
    # The number of the code alone.
    assert len(encoder.header_table.dynamic_entries) == before + 1


def test_headers_are_what_http2_lets_pass() -> None:
    packed = Encoder().encode([*RESPONSE, *trailers(Status(code=Code.INTERNAL, message="a\nb\0", details=b"x"))])
    for name, value in Decoder().decode(packed, raw=True):
        assert name == name.lower()
        assert value == value.strip()
        assert not set(value) & {0, 10, 13}
