"""What a transport is to those who start and stop it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a transport is told.

    Attributes:
        keepalive_seconds: between two pings to a silent client.
        ping_timeout_seconds: until a client that does not answer a ping is taken for gone.
        connections_max: how many connections there may be; the next one is closed at once, so that its client knows.
        status_seconds: how long a status may wait behind messages that its client does not read; then the stream is
            reset without it.
    """

    keepalive_seconds: float
    ping_timeout_seconds: float
    connections_max: int = 65_536
    status_seconds: float = 30.0


class Server(Protocol):
    """Serves methods at an address."""

    async def start(self, address: str) -> int:
        """Listens and returns the port. Raises OSError if the address cannot be had."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, and cancels those that are still there after the grace. May be called again."""
        ...
