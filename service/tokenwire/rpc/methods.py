"""The methods that the servicers offer, from the descriptors: a method without a servicer is an error at start."""

from importlib import resources

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2

from tokenwire.transport.call import Endpoint, Kind
from tokenwire.v1 import (
    batch_service_pb2,
    chat_service_pb2,
    generate_service_pb2,
    model_service_pb2,
    run_service_pb2,
    server_service_pb2,
)

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (generate_service_pb2, "GenerateService"),
        (chat_service_pb2, "ChatService"),
        (model_service_pb2, "ModelService"),
        (run_service_pb2, "RunService"),
        (batch_service_pb2, "BatchService"),
        (server_service_pb2, "ServerService"),
    )
)


_KINDS = {
    (False, False): Kind.UNARY,
    (False, True): Kind.SERVER_STREAM,
    (True, False): Kind.CLIENT_STREAM,
    (True, True): Kind.BIDI,
}


def endpoints(servicers: dict[str, object]) -> list[Endpoint]:
    """Returns the endpoints of all services; `servicers` by the service's full name."""
    return [
        Endpoint(
            method=f"/{service.full_name}/{method.name}",
            kind=_KINDS[method.client_streaming, method.server_streaming],
            parse=message_factory.GetMessageClass(method.input_type).FromString,
            handler=getattr(servicers[service.full_name], method.name),
        )
        for service in SERVICES
        for method in service.methods
    ]


def reflection_pool() -> descriptor_pool.DescriptorPool:
    """Returns the whole descriptors in a pool of their own: validation rules and error details included."""
    pool = descriptor_pool.DescriptorPool()
    data = resources.files("tokenwire.v1").joinpath("descriptors.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    pool.Add(FileDescriptorProto.FromString(error_details_pb2.DESCRIPTOR.serialized_pb))
    return pool
