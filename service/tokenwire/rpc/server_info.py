"""ServerService."""

from tokenwire import __version__
from tokenwire.transport.call import Call
from tokenwire.v1 import server_service_pb2

API_REVISION = 1
FEATURES = (
    "batch.resume",
    "delivery.detached",
    "delivery.heartbeat",
    "delivery.none",
    "delivery.size",
    "failover.before_first_token",
    "failover.continue",
    "prefill.progress",
    "run.attach",
    "run.cancel_in_advance",
    "run.detached",
    "run.orphan_grace",
)


class ServerServicer:
    """Tells of the server.

    Args:
        journal: which one it has: memory, file or redis.
    """

    def __init__(self, journal: str) -> None:
        self._features = sorted((*FEATURES, f"journal.{journal}"))

    async def GetServerInfo(
        self, request: server_service_pb2.GetServerInfoRequest, call: Call
    ) -> server_service_pb2.ServerInfo:
        """Tells the server's version and what it can do."""
        return server_service_pb2.ServerInfo(version=__version__, api_revision=API_REVISION, features=self._features)
