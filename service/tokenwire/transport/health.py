"""grpc.health.v1.

The standard servicer holds a lock while it writes to a watcher: one that does not read would hold up every other
watcher, and the end of the service as well (tests/wire/test_health.py).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from tokenwire.transport.grpc_aio import GrpcServer

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Tells probes what serves: "" is the process, then each service, and each engine as `engine:NAME`."""

    def __init__(self, server: GrpcServer) -> None:
        self._serving = {"": True}
        self._shut_down = False
        self._changed = asyncio.Event()
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            "List": grpc.unary_unary_rpc_method_handler(
                self._list,
                request_deserializer=health_pb2.HealthListRequest.FromString,
                response_serializer=health_pb2.HealthListResponse.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }
        server.grpc_server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])

    async def set(self, serving: Mapping[str, bool]) -> None:
        """Takes the state of each name."""
        self._serving.update(serving)
        self._tell()

    async def shut_down(self) -> None:
        """From now on nothing serves, whatever is set."""
        self._shut_down = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, name: str) -> int:
        if name not in self._serving:
            return int(_UNKNOWN)
        return int(_SERVING if self._serving[name] and not self._shut_down else _NOT_SERVING)

    async def _check(self, request: Any, context: Any) -> Any:
        status = self._status(request.service)
        if status == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def _list(self, request: Any, context: Any) -> Any:
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._serving}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def _watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        told: int | None = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status == told:
                await changed.wait()
            else:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
