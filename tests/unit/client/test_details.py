"""The details of a status, read without the package that has their classes."""

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import Code as DomainCode
from tokenwire.domain.errors import TokenwireError, Violation
from tokenwire.rpc.status import encode_error
from tokenwire_client import Code, Failure
from tokenwire_client import Violation as Told
from tokenwire_client.core import details

texts = st.text(max_size=20)


@given(
    st.sampled_from(sorted(DomainCode)),
    texts.filter(bool),
    texts,
    st.booleans(),
    st.none() | st.floats(0, 1e6),
    st.lists(st.tuples(texts, texts), max_size=5),
    st.dictionaries(texts.filter(bool), texts, max_size=3),
)
def test_what_the_server_writes_is_read(
    code: DomainCode,
    reason: str,
    message: str,
    retryable: bool,
    retry_after: float | None,
    violations: list[tuple[str, str]],
    metadata: dict[str, str],
) -> None:
    error = TokenwireError(
        code,
        reason,
        message,
        retryable=retryable,
        retry_after=retry_after,
        violations=tuple(Violation(field=field, description=text) for field, text in violations),
        resource=("run", "r"),
        metadata={f"x.{name}": value for name, value in metadata.items()},
    )
    read = details.read(Code(code), message, encode_error(error, "0a1b"))
    bug = code is DomainCode.INTERNAL and reason == "INTERNAL"
    assert (read.code, read.message, read.rpc_id, read.told) == (Code(code), message, "0a1b", True)
    assert read.reason == ("" if bug else reason)
    assert read.retryable == (retryable and not bug)
    assert read.retry_after == (None if retry_after is None else pytest.approx(int(retry_after * 1000) / 1000))
    assert read.violations == tuple(Told(field=field, description=text) for field, text in violations)
    assert bug or {name: read.metadata[f"x.{name}"] for name in metadata} == metadata


def test_a_bug_of_the_server_has_its_rpc_id_and_is_no_broken_line() -> None:
    error = TokenwireError(DomainCode.INTERNAL, "INTERNAL", "internal error")
    read = details.read(Code.INTERNAL, "internal error", encode_error(error, "0a1b"))
    assert (read.reason, read.rpc_id, read.broken) == ("", "0a1b", False)


@pytest.mark.parametrize("data", [None, b"", b"\xff", b"\x1a\x05nonsense"])
def test_without_details_or_with_nonsense_the_line_broke(data: bytes | None) -> None:
    assert details.read(Code.UNAVAILABLE, "gone", data) == Failure(code=Code.UNAVAILABLE, message="gone")
    assert details.read(Code.UNAVAILABLE, "gone", data).broken


def test_what_a_proxy_says_is_not_taken_for_the_servers() -> None:
    status = status_pb2.Status(code=14)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="proxy"))
    read = details.read(Code.UNAVAILABLE, "busy", status.SerializeToString())
    assert (read.told, read.reason) == (False, "")


def test_details_of_a_later_contract_are_passed_over() -> None:
    status = status_pb2.Status(code=14)
    status.details.add().Pack(error_details_pb2.Help())
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id="0a1b"))
    assert details.read(Code.UNAVAILABLE, "", status.SerializeToString()).rpc_id == "0a1b"


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    details.read(Code.UNKNOWN, "", data)
