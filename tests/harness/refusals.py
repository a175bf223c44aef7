"""What a client is told of an error: status and google.rpc details."""

from collections.abc import AsyncIterable, Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"
_KINDS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RequestInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.ResourceInfo,
    error_details_pb2.BadRequest,
)

Message = TypeVar("Message")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A status that is not OK. Details that are absent are None, or empty."""

    code: grpc.StatusCode
    message: str
    size: int
    reason: str | None
    domain: str | None
    metadata: dict[str, str]
    rpc_id: str | None
    retry_seconds: float | None
    resource: tuple[str, str] | None
    violations: list[tuple[str, str]]


async def refused(call: Awaitable[Any]) -> Refusal:
    """Awaits a call that must fail, and reads its status."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads the status of a call that has failed."""
    return _read(error.code(), error.details() or "", dict(error.trailing_metadata() or ()))


async def read_to_refusal(call: AsyncIterable[Message]) -> tuple[list[Message], Refusal]:
    """Reads a stream that must fail, and returns its messages and its status."""
    messages: list[Message] = []

    async def read() -> None:
        async for message in call:
            messages.append(message)  # noqa: PERF401 - what came before the error counts

    return messages, await refused(read())


def _read(code: grpc.StatusCode, message: str, trailers: dict[str, Any]) -> Refusal:
    data = trailers.get(DETAILS_KEY, b"")
    status = Status.FromString(data)
    if data:
        assert status.code == code.value[0], "the two codes of a status differ"
        assert status.message.startswith(message), "the two messages of a status differ"
    found: dict[Any, Any] = {}
    for box in status.details:
        kind = next(kind for kind in _KINDS if box.Is(kind.DESCRIPTOR))
        assert kind not in found, f"twice in a status: {kind}"
        found[kind] = kind()
        box.Unpack(found[kind])
    info, request, retry, resource, bad = (found.get(kind) for kind in _KINDS)
    return Refusal(
        code=code,
        message=message,
        size=len(data),
        reason=info.reason if info else None,
        domain=info.domain if info else None,
        metadata=dict(info.metadata) if info else {},
        rpc_id=request.request_id if request else None,
        retry_seconds=retry.retry_delay.ToMilliseconds() / 1000 if retry else None,
        resource=(resource.resource_type, resource.resource_name) if resource else None,
        violations=[(one.field, one.description) for one in bad.field_violations] if bad else [],
    )
