"""Errors: domain values to google.rpc details."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from tokenwire.domain.errors import DOMAIN, Code, TokenwireError

# Beyond 8 KiB of trailers gRPC refuses them at random, beyond 16 KiB always.
MAX_DETAILS_BYTES = 6 * 1024


def encode_error(error: TokenwireError, rpc_id: str) -> bytes:
    """Serializes the google.rpc.Status of an error. What would make it too large is left out, the last first."""
    details = _details(error, rpc_id)
    status = Status(code=error.code, message=error.message[:500])
    while True:
        del status.details[:]
        status.details.extend(details)
        data: bytes = status.SerializeToString()
        if len(data) <= MAX_DETAILS_BYTES or len(details) <= 1:
            return data
        details.pop()


def _details(error: TokenwireError, rpc_id: str) -> list[Any]:
    metadata = {"retryable": "true" if error.retryable else "false"} | error.metadata
    details: list[ProtoMessage] = []
    if error.code is not Code.INTERNAL or error.reason != "INTERNAL":
        details.append(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    details.append(error_details_pb2.RequestInfo(request_id=rpc_id))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.resource is not None:
        kind, name = error.resource
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=one.field, description=one.description)
            for one in error.violations[:20]
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    packed = []
    for detail in details:
        box = Any()
        box.Pack(detail)
        packed.append(box)
    return packed
