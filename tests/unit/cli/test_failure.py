"""What an error says."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from tokenwire.cli.failure import Report
from tokenwire.cli.rpc_failure import failure_of
from tokenwire_client.core.details import KEY


def packed(*details: object) -> bytes:
    status = status_pb2.Status(code=8, message="too much")
    for detail in details:
        box = Any()
        box.Pack(detail)  # type: ignore[arg-type]
        status.details.append(box)
    data: bytes = status.SerializeToString()
    return data


def failed(code: StatusCode, text: str = "", trailers: Metadata | None = None) -> AioRpcError:
    return AioRpcError(code, Metadata(), trailers or Metadata(), details=text)


def test_all_details_are_one_line() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="sampling.n", description="is too large")
    details = packed(
        error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="tokenwire", metadata={"limit": "5"}),
        error_details_pb2.RequestInfo(request_id="0a1b"),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    error = failed(StatusCode.RESOURCE_EXHAUSTED, "too much", Metadata((KEY, details)))
    report = failure_of(error, "host:1").report
    assert report.line() == (
        "RESOURCE_EXHAUSTED (RATE_LIMITED): too much [field sampling.n; retry after 1.5 s; rpc 0a1b]"
    )
    assert report.as_json() == {
        "code": "RESOURCE_EXHAUSTED",
        "reason": "RATE_LIMITED",
        "message": "too much",
        "fields": [{"field": "sampling.n", "description": "is too large"}],
        "retry_after_ms": 1500,
        "rpc_id": "0a1b",
        "metadata": {"limit": "5"},
    }


def test_a_name_that_does_not_resolve_is_not_called_a_server_that_is_down() -> None:
    line = failure_of(failed(StatusCode.UNAVAILABLE, "DNS resolution failed for nowhere"), "nowhere:1").report.line()
    assert "cannot reach nowhere:1: DNS resolution failed for nowhere" in line


def test_an_error_without_details_is_told_as_it_is() -> None:
    assert failure_of(failed(StatusCode.UNIMPLEMENTED, "Method not found!"), "host:1").report.line() == (
        "UNIMPLEMENTED: Method not found!"
    )


def test_a_retry_at_once_is_told() -> None:
    assert Report(message="no", retry_after=0.0).line() == "no [retry after 0.0 s]"
