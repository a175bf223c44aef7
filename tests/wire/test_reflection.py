"""Server reflection: what grpcurl and its like see."""

from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest as Request,
)
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionResponse as Response,
)

from harness.byte_calls import bidi_call
from harness.refusals import read_to_refusal
from harness.service import service
from tokenwire.rpc.methods import SERVICES

VERSIONS = ["v1", "v1alpha"]
OTHERS = {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}


async def _asked(channel: grpc.aio.Channel, version: str, *requests: Request) -> list[Response]:
    """Asks in one call; the messages of both versions are the same on the wire."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )
    return [answer async for answer in call(iter(requests))]


def _has(pool: descriptor_pool.DescriptorPool, name: str) -> bool:
    try:
        pool.FindFileByName(name)
    except (KeyError, TypeError):
        return False
    return True


async def _pool_of(channel: grpc.aio.Channel, version: str, symbols: Iterable[str]) -> descriptor_pool.DescriptorPool:
    """Fetches the files of symbols and all that they import, as clients do, imports first."""
    files: dict[str, FileDescriptorProto] = {}
    wanted = [Request(file_containing_symbol=symbol) for symbol in symbols]
    while wanted:
        for answer in await _asked(channel, version, *wanted):
            assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(data)
                files[file.name] = file
        names = {name for file in files.values() for name in file.dependency} - set(files)
        wanted = [Request(file_by_filename=name) for name in sorted(names)]
    pool = descriptor_pool.DescriptorPool()

    def add(name: str) -> None:
        if not _has(pool, name):
            for needed in files[name].dependency:
                add(needed)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


@pytest.mark.asyncio
@pytest.mark.parametrize("version", VERSIONS)
async def test_every_service_is_listed(version: str) -> None:
    async with service() as running:
        (answer,) = await _asked(running.channel, version, Request(list_services=""))
    names = {one.name for one in answer.list_services_response.service}
    assert names == {one.full_name for one in SERVICES} | OTHERS


@pytest.mark.asyncio
@pytest.mark.parametrize("version", VERSIONS)
async def test_every_listed_service_describes_itself_to_its_last_message(version: str) -> None:
    async with service() as running:
        (listed,) = await _asked(running.channel, version, Request(list_services=""))
        names = [one.name for one in listed.list_services_response.service]
        pool = await _pool_of(running.channel, version, names)
    for name in names:
        methods = pool.FindServiceByName(name).methods
        assert methods
        for method in methods:
            # A client can make the request and read the answer.
            message_factory.GetMessageClass(method.input_type)()
            message_factory.GetMessageClass(method.output_type)()


@pytest.mark.asyncio
@pytest.mark.parametrize("version", VERSIONS)
async def test_the_validation_rules_can_be_read(version: str) -> None:
    async with service() as running:
        pool = await _pool_of(running.channel, version, ["tokenwire.v1.GenerateService", "tokenwire.v1.Sampling"])
    rules: Any = pool.FindExtensionByName("buf.validate.field")
    options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))

    def rule(message: str, field: str) -> Any:
        found: FieldDescriptor = pool.FindMessageTypeByName(message).fields_by_name[field]
        return options.FromString(found.GetOptions().SerializeToString()).Extensions[rules]

    assert rule("tokenwire.v1.Sampling", "temperature").float.lte == 2
    assert rule("tokenwire.v1.Sampling", "temperature").float.finite
    assert rule("tokenwire.v1.GenerateRequest", "prompt").string.min_len == 1
    assert rule("tokenwire.v1.RunOptions", "request_id").string.max_bytes == 128


@pytest.mark.asyncio
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_file_is_found_by_every_kind_of_symbol_in_it(version: str) -> None:
    symbols = {
        "tokenwire.v1.GenerateService": "generate_service",
        "tokenwire.v1.GenerateService.StreamGenerate": "generate_service",
        "tokenwire.v1.GenerateRequest": "generate_service",
        "tokenwire.v1.GenerateRequest.prompt": "generate_service",
        "tokenwire.v1.FinishReason": "finish",
        "tokenwire.v1.FINISH_REASON_STOP": "finish",
    }
    async with service() as running:
        asked = [Request(file_containing_symbol=symbol) for symbol in symbols]
        answers = await _asked(running.channel, version, *asked)
    for (symbol, name), answer in zip(symbols.items(), answers, strict=True):
        # The files that it imports follow it.
        data = answer.file_descriptor_response.file_descriptor_proto[0]
        assert FileDescriptorProto.FromString(data).name == f"tokenwire/v1/{name}.proto", symbol


@pytest.mark.asyncio
@pytest.mark.parametrize("version", VERSIONS)
async def test_what_does_not_exist_is_an_answer_not_the_end_of_the_call(version: str) -> None:
    unknown = ["nothing.v1.Nothing", "tokenwire.v1.GenerateService.Nothing", "nothing", ".", ""]
    asked = [Request(file_containing_symbol=symbol) for symbol in unknown]
    asked.append(Request(file_by_filename="nothing.proto"))
    async with service() as running:
        *answers, listed = await _asked(running.channel, version, *asked, Request(list_services=""))
    assert len(answers) == len(asked)
    for answer in answers:
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert listed.list_services_response.service


@pytest.mark.asyncio
@pytest.mark.parametrize("version", VERSIONS)
async def test_without_reflection_there_is_none(version: str) -> None:
    async with service(reflection=False) as running:
        method = bidi_call(running.channel, f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        _, told = await read_to_refusal(method(iter([b""])))
    assert told.code is grpc.StatusCode.UNIMPLEMENTED
