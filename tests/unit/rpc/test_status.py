"""What an error says on the wire, within what trailers can hold."""

from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import DOMAIN, Code, InvalidRequestError, NotFoundError, TokenwireError, Violation
from tokenwire.rpc.status import MAX_DETAILS_BYTES, encode_error

LONG = st.text(max_size=3) | st.builds(
    lambda text, times: text * times, st.text(min_size=1, max_size=20), st.integers(0, 2000)
)
ERRORS = st.builds(
    TokenwireError,
    st.sampled_from([code for code in Code if code is not Code.OK]),
    st.from_regex("[A-Z][A-Z_]{0,60}[A-Z]", fullmatch=True),
    LONG,
    retryable=st.booleans(),
    retry_after=st.none() | st.floats(0, 3600),
    violations=st.lists(st.builds(lambda *texts: Violation(field=texts[0], description=texts[1]), LONG, LONG)).map(
        tuple
    ),
    resource=st.none() | st.tuples(LONG, LONG),
    metadata=st.dictionaries(LONG, LONG, max_size=5),
)


def details(error: TokenwireError) -> dict[type, object]:
    """Decodes an error's details, by type."""
    status = Status.FromString(encode_error(error, "rpc-1"))
    found: dict[type, object] = {}
    for box in status.details:
        kind = getattr(error_details_pb2, box.TypeName().split(".")[-1])
        message = kind()
        assert box.Unpack(message)
        found[kind] = message
    return found


@given(error=ERRORS)
def test_any_error_fits_into_trailers_and_still_says_why(error: TokenwireError) -> None:
    assert len(encode_error(error, "rpc-1")) <= MAX_DETAILS_BYTES
    found = details(error)
    info = found[error_details_pb2.ErrorInfo]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (error.reason, DOMAIN)
    assert info.metadata["retryable"] == ("true" if error.retryable else "false")
    assert found[error_details_pb2.RequestInfo] == error_details_pb2.RequestInfo(request_id="rpc-1")


def test_small_errors_say_everything() -> None:
    error = TokenwireError(
        Code.RESOURCE_EXHAUSTED,
        "FULL",
        "full",
        retryable=True,
        retry_after=1.5,
        violations=(Violation(field="a.b", description="is wrong"),),
        resource=("run", "r1"),
        metadata={"limit": "5"},
    )
    info, request, retry, resource, bad = details(error).values()
    assert info == error_details_pb2.ErrorInfo(
        reason="FULL", domain="tokenwire", metadata={"retryable": "true", "limit": "5"}
    )
    assert isinstance(request, error_details_pb2.RequestInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert resource == error_details_pb2.ResourceInfo(resource_type="run", resource_name="r1")
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(one.field, one.description) for one in bad.field_violations] == [("a.b", "is wrong")]


def test_many_violations_are_told_as_far_as_there_is_room_and_at_most_twenty() -> None:
    for text, least, most in (("short", 20, 20), ("é" * 200, 5, 15)):
        violations = tuple(Violation(field=f"field[{number}]", description=text) for number in range(30))
        found = details(TokenwireError(Code.INVALID_ARGUMENT, "INVALID_REQUEST", "wrong", violations=violations))
        bad = found[error_details_pb2.BadRequest]
        assert isinstance(bad, error_details_pb2.BadRequest)
        assert least <= len(bad.field_violations) <= most
        assert bad.field_violations[0].field == "field[0]"


def test_a_bug_says_the_rpc_id_and_nothing_else() -> None:
    found = details(TokenwireError(Code.INTERNAL, "INTERNAL", "internal error"))
    assert list(found) == [error_details_pb2.RequestInfo]


def test_what_is_wrong_or_missing_is_named() -> None:
    invalid = InvalidRequestError("sampling.top_k", "is wrong", metadata={"got": "1"})
    (violation,) = invalid.violations
    assert (violation.field, str(invalid).startswith("sampling.top_k")) == ("sampling.top_k", True)
    missing = NotFoundError("run", "r1", "no such run")
    assert (missing.code, missing.reason, missing.resource) == (Code.NOT_FOUND, "RUN_NOT_FOUND", ("run", "r1"))
