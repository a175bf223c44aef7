"""grpc.health.v1, by the standard servicer."""

from collections.abc import Mapping

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from tokenwire.transport.grpc_aio import GrpcServer

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """Tells probes what serves: "" is the process, then each service, and each engine as `engine:NAME`."""

    def __init__(self, server: GrpcServer) -> None:
        self._servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server.grpc_server)

    async def set(self, serving: Mapping[str, bool]) -> None:
        """Takes the state of each name."""
        for name, ok in serving.items():
            status = health_pb2.HealthCheckResponse.SERVING if ok else health_pb2.HealthCheckResponse.NOT_SERVING
            await self._servicer.set(name, status)

    async def shut_down(self) -> None:
        """From now on nothing serves."""
        await self._servicer.enter_graceful_shutdown()
