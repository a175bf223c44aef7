"""grpc.health.v1.

The standard servicer holds a lock while it writes to a watcher: one that does not read would hold up every other
watcher, and the end of the service as well (tests/wire/test_health.py).
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from grpc_health.v1 import health_pb2

from tokenwire.domain.errors import NotFoundError
from tokenwire.transport.call import Call, Endpoint, Kind

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Tells probes what serves: "" is the process, then each service, and each engine as `engine:NAME`."""

    def __init__(self) -> None:
        self._serving = {"": True}
        self._shut_down = False
        self._changed = asyncio.Event()

    def endpoints(self) -> list[Endpoint]:
        """Returns the methods of the service."""
        one, every = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthListRequest.FromString
        return [
            Endpoint(method=f"/{SERVICE}/Check", kind=Kind.UNARY, parse=one, handler=self._check),
            Endpoint(method=f"/{SERVICE}/List", kind=Kind.UNARY, parse=every, handler=self._list),
            Endpoint(method=f"/{SERVICE}/Watch", kind=Kind.SERVER_STREAM, parse=one, handler=self._watch),
        ]

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

    async def _check(self, request: Any, call: Call) -> Any:
        status = self._status(request.service)
        if status == _UNKNOWN:
            raise NotFoundError("service", request.service, "there is no such service or engine")
        return health_pb2.HealthCheckResponse(status=status)

    async def _list(self, request: Any, call: Call) -> Any:
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._serving}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def _watch(self, request: Any, call: Call) -> None:
        told: int | None = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status == told:
                await changed.wait()
            else:
                told = status
                await call.write(health_pb2.HealthCheckResponse(status=status))
