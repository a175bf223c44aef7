"""`tokenwire health`."""

import json
from typing import Annotated

import typer

from tokenwire.cli.failure import SERVER, Finished
from tokenwire.cli.options import DEFAULT_TARGET, Json, Target, Timeout

SERVICES = ("GenerateService", "ChatService", "BatchService", "ModelService", "RunService", "ServerService")
SERVING = "SERVING"
UNKNOWN = "SERVICE_UNKNOWN"


def health(
    name: Annotated[
        str | None,
        typer.Argument(help='Ask for this name alone, such as "engine:embedded".', show_default=False),
    ] = None,
    target: Target = DEFAULT_TARGET,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Shows what serves: the process, its services, its engines. Exits with 0 if the services (or NAME) serve, else 2.

    An engine that is down shows, but only the services decide: they know whether another one can answer.
    """
    states = _states(name, target, timeout, as_json)
    ok = all(state == SERVING for one, state in states.items() if one == name or not one.startswith("engine:"))
    if as_json:
        print(json.dumps({"serving": ok, "states": states}))
    else:
        from tokenwire.cli.tables import print_rows

        print_rows(("name", "state"), [(one or "(process)", state) for one, state in states.items()])
    if not ok:
        raise Finished(SERVER)


def _states(name: str | None, target: str, timeout: float | None, as_json: bool) -> dict[str, str]:
    from grpc import StatusCode
    from grpc.aio import AioRpcError
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from tokenwire.cli.connection import Connection

    async def ask() -> dict[str, str]:
        states = {}
        stub = health_pb2_grpc.HealthStub(connection.channel)
        for one in [name] if name is not None else await names():
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=one), timeout=timeout)
            except AioRpcError as error:
                if error.code() is not StatusCode.NOT_FOUND:
                    raise
                states[one] = UNKNOWN
            else:
                states[one] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return states

    async def names() -> list[str]:
        # The health service cannot list its names; an engine that has told no model yet is not seen.
        found = await connection.client.models(timeout=timeout)
        engines = {f"engine:{engine.name}": None for model in found for engine in model.engines}
        return ["", *(f"tokenwire.v1.{service}" for service in SERVICES), *engines]

    with Connection(target, as_json=as_json) as connection:
        return connection.run(ask())
