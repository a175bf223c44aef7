"""Expected errors. The guard interceptor turns them into a gRPC status; everything else is a bug."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

DOMAIN = "tokenwire"


class Code(IntEnum):
    """A gRPC status code, with gRPC's names and numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One field of a request that breaks a rule."""

    field: str
    description: str


class TokenwireError(Exception):
    """An expected error: what the caller is told, and nothing that the caller must not see.

    Args:
        code: the gRPC status.
        reason: a stable word for programs, in UPPER_SNAKE_CASE.
        message: one sentence for people; never prompt, key, path or address.
        retryable: whether the same request may work when sent again.
        retry_after: seconds to wait before that, where a figure is known.
        violations: the fields at fault.
        resource: type and name of what was not found or is taken.
        metadata: further machine-readable facts, such as limit and got.
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        violations: tuple[Violation, ...] = (),
        resource: tuple[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
        self.violations = violations
        self.resource = resource
        self.metadata = dict(metadata or {})


class InvalidRequestError(TokenwireError):
    """The request breaks a rule; names the field."""

    def __init__(
        self,
        field: str,
        description: str,
        *,
        reason: str = "INVALID_REQUEST",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            Code.INVALID_ARGUMENT,
            reason,
            f"{field}: {description}",
            violations=(Violation(field=field, description=description),),
            metadata=metadata,
        )


class NotFoundError(TokenwireError):
    """What was named does not exist, or is another tenant's."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(Code.NOT_FOUND, f"{kind.upper()}_NOT_FOUND", message, resource=(kind, name))


class EngineError(TokenwireError):
    """An engine failed. Raised by engines with the code that fits before the first text of the run."""
