"""gRPC errors, with the details that the server sends along."""

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError

from tokenwire.cli.failure import CommandError, Report

DETAILS_KEY = "grpc-status-details-bin"


def failure_of(error: AioRpcError, target: str, *, answered: bool = False, hint: str = "") -> CommandError:
    """Returns what to tell of an error.

    Args:
        error: what the call ended with.
        target: the server's address.
        answered: whether the call had brought a message before.
        hint: what to do about it, if there is nothing better to say.
    """
    code, message = error.code(), error.details() or ""
    status = _status(error)
    if status is not None:
        return CommandError(_report(code.name, status, hint))
    if code is StatusCode.UNAVAILABLE and not answered:
        why = "nothing listens there" if "refused" in message else message
        hint = "Start a server with: tokenwire serve; or name another one by --target"
        return CommandError(Report(message=f"cannot reach {target}: {why}", code=code.name, hint=hint))
    if code is StatusCode.UNAVAILABLE:
        message = "the connection to the server broke"
    elif code is StatusCode.DEADLINE_EXCEEDED:
        message = "the time of --timeout is over"
    return CommandError(Report(message=message or "no reason was given", code=code.name, hint=hint))


def _status(error: AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _report(code: str, status: status_pb2.Status, hint: str) -> Report:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.RequestInfo()
    retry = error_details_pb2.RetryInfo()
    refused = error_details_pb2.BadRequest()
    for detail in status.details:
        for message in (info, request, retry, refused):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    delay: Duration = retry.retry_delay
    return Report(
        message=status.message,
        code=code,
        reason=info.reason,
        fields={one.field: one.description for one in refused.field_violations if one.field},
        retry_after=delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
        rpc_id=request.request_id,
        metadata=dict(info.metadata),
        hint=hint,
    )
