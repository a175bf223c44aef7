"""What is known of one RPC."""

from collections.abc import Callable
from dataclasses import dataclass

# Without authentication there is one tenant.
LOCAL_TENANT = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Seconds: `monotonic` never goes back, `wall` is since 1970 (UTC)."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """One RPC: its id, whose it is, and when it arrived in monotonic seconds."""

    rpc_id: str
    tenant: str
    received_at: float
