"""Errors of the client and of gRPC, as people and programs are told."""

from grpc.aio import AioRpcError

from tokenwire.cli.failure import CommandError, Report
from tokenwire_client import Code, Failure, TokenwireClientError
from tokenwire_client.wire import failure_of as read_failure


def failure_of(
    error: TokenwireClientError | AioRpcError, target: str, *, answered: bool = False, hint: str = ""
) -> CommandError:
    """Returns what to tell of an error.

    Args:
        error: what the call ended with.
        target: the server's address.
        answered: whether the server had been heard before.
        hint: what to do about it, if there is nothing better to say.
    """
    failure = error.failure if isinstance(error, TokenwireClientError) else read_failure(error)
    if failure.told:
        return CommandError(_report(failure, hint))
    message = failure.message
    if failure.code is Code.UNAVAILABLE and not answered:
        why = "nothing listens there" if "refused" in message else message
        hint = "Start a server with: tokenwire serve; or name another one by --target"
        return CommandError(Report(message=f"cannot reach {target}: {why}", code=failure.code.name, hint=hint))
    if failure.broken:
        message = broken(failure)
    elif failure.code is Code.DEADLINE_EXCEEDED:
        message = "the time of --timeout is over"
    return CommandError(Report(message=message or "no reason was given", code=failure.code.name, hint=hint))


def broken(failure: Failure) -> str:
    """Returns why a call ended that may be made again."""
    return failure.message if failure.told else "the connection to the server broke"


def _report(failure: Failure, hint: str) -> Report:
    return Report(
        message=failure.message,
        code=failure.code.name,
        reason=failure.reason,
        fields={one.field: one.description for one in failure.violations if one.field},
        retry_after=failure.retry_after,
        rpc_id=failure.rpc_id,
        metadata=failure.metadata,
        hint=hint,
    )
