"""How a call failed, as far as the client was told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenwire.v1.finish_pb2 import RunError
from tokenwire_client.core.code import Code

SLOW_CONSUMER = "SLOW_CONSUMER"
# What the line itself fails with: grpc's own words, a proxy's, a server that was killed.
_BROKEN = (Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A field of the request that breaks a rule."""

    field: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The status of a call that did not end well.

    Args:
        code: the status.
        message: one sentence.
        reason: the server's stable word; empty if it gave none.
        told: whether a tokenwire server said it; else the line broke, or something between did.
        retryable: whether the server says that the same may work later.
        retry_after: seconds to wait before that; None: not said.
        violations: the fields at fault.
        rpc_id: names the call in the server's log.
        metadata: further facts for programs.
    """

    code: Code
    message: str
    reason: str = ""
    told: bool = False
    retryable: bool = False
    retry_after: float | None = None
    violations: tuple[Violation, ...] = ()
    rpc_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def broken(self) -> bool:
        """Whether the line broke, of which nobody can say what the server knows."""
        return not self.told and self.code in _BROKEN

    def passing(self, *, accepted: bool) -> bool:
        """Whether another call may do better.

        Args:
            accepted: whether the run is known to exist.
        """
        if not self.told:
            return self.broken
        if not self.retryable:
            return False
        match self.code:
            case Code.UNAVAILABLE:
                return True
            case Code.ABORTED:
                return self.reason == SLOW_CONSUMER
            case Code.RESOURCE_EXHAUSTED:
                return self.retry_after is not None and not accepted
            case _:
                return False


def silence(seconds: float) -> Failure:
    """Returns the failure of a line on which nothing came for so long, not even a heartbeat."""
    return Failure(code=Code.UNAVAILABLE, message=f"nothing came for {seconds:g} s")


def overdue(message: str = "the time for the call is over") -> Failure:
    """Returns the failure of a call that took longer than its caller allows."""
    return Failure(code=Code.DEADLINE_EXCEEDED, message=message)


def of_run(error: RunError, status: Failure | None) -> Failure:
    """Returns how a run failed: what its `end` says, and what the status after it adds."""
    told = status if status is not None and status.reason == error.reason else None
    return Failure(
        code=Code(error.code),
        message=error.message,
        reason=error.reason,
        told=True,
        retryable=error.retryable,
        retry_after=error.retry_after_ms / 1000 if error.retry_after_ms else None,
        violations=told.violations if told else (),
        rpc_id=told.rpc_id if told else "",
        metadata=told.metadata if told else {},
    )
