"""Errors: domain values to google.rpc details."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from tokenwire.domain.errors import DOMAIN, Code, TokenwireError

# Beyond 8 KiB of trailers gRPC refuses them at random, beyond 16 KiB always.
MAX_DETAILS_BYTES = 6 * 1024
# Of these, for the facts in ErrorInfo, so that it always fits.
MAX_FACTS_BYTES = 2 * 1024
MAX_VIOLATIONS = 20


def encode_error(error: TokenwireError, rpc_id: str) -> bytes:
    """Serializes the google.rpc.Status of an error. What would make it too large is left out."""
    status = Status(code=error.code, message=error.message[:500])
    for detail in _details(error, rpc_id):
        status.details.add().Pack(detail)
        while status.ByteSize() > MAX_DETAILS_BYTES:
            del status.details[-1]
            if not isinstance(detail, error_details_pb2.BadRequest) or len(detail.field_violations) < 2:
                break
            del detail.field_violations[-1]
            status.details.add().Pack(detail)
    data: bytes = status.SerializeToString()
    return data


def _details(error: TokenwireError, rpc_id: str) -> list[ProtoMessage]:
    details: list[ProtoMessage] = []
    if error.code is not Code.INTERNAL or error.reason != "INTERNAL":
        details.append(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_facts(error)))
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
            for one in error.violations[:MAX_VIOLATIONS]
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    return details


def _facts(error: TokenwireError) -> dict[str, str]:
    facts = {"retryable": "true" if error.retryable else "false"}
    room = MAX_FACTS_BYTES
    for key, value in error.metadata.items():
        # Each entry costs a few bytes of its own.
        room -= len(key.encode()) + len(value.encode()) + 16
        if room >= 0:
            facts[key] = value
    return facts
