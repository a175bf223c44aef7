"""Server reflection, v1 and v1alpha, answered by the standard servicer.

grpcio-reflection has v1alpha alone. The messages of v1 are the same on the wire, so the same servicer serves both.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tokenwire.transport.call import Call, Endpoint, Kind

V1 = "grpc.reflection.v1.ServerReflection"


def reflection_endpoints(services: Sequence[str], pool: DescriptorPool) -> list[Endpoint]:
    """Returns what serves the descriptors in `pool` for `services`, and those of health and reflection themselves."""
    alpha = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    for file in (FileDescriptorProto.FromString(health_pb2.DESCRIPTOR.serialized_pb), alpha, _as_v1(alpha)):
        pool.Add(file)
    names = [*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME, V1]
    servicer = reflection.aio.ReflectionServicer(names, pool=_WithMethods(pool))

    async def serve(requests: Any, call: Call) -> None:
        # It does nothing with a context.
        async with aclosing(servicer.ServerReflectionInfo(requests, None)) as answers:
            async for answer in answers:
                await call.write(answer)

    parse = reflection_pb2.ServerReflectionRequest.FromString
    return [
        Endpoint(method=f"/{service}/ServerReflectionInfo", kind=Kind.BIDI, parse=parse, handler=serve)
        for service in (reflection.SERVICE_NAME, V1)
    ]


class _WithMethods:
    """A pool that also finds the file of a method, as `grpcurl describe` of one asks for."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's own name
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found: FileDescriptor = (
                self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file
            )
            return found


def _as_v1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    file = FileDescriptorProto()
    file.CopyFrom(alpha)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = "grpc.reflection.v1"
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for service in file.service:
        for rpc in service.method:
            rpc.input_type = rpc.input_type.replace(".v1alpha.", ".v1.")
            rpc.output_type = rpc.output_type.replace(".v1alpha.", ".v1.")
    return file
