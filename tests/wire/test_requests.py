"""Requests that are no messages, break rules, or are too large: refused with the right status, before any engine."""

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.byte_calls import bidi_call, stream_call, unary_call
from harness.refusals import Refusal, read_to_refusal, refused
from harness.rules import paths, rules
from harness.service import Service, service
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import ScriptedEngine, Step, words
from tokenwire.rpc.methods import SERVICES
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message as ChatMessage

NOT_PROTOBUF = b"\xff\xff\xff\xff"
# A string in field 1 that is no UTF-8, for messages that have a string there.
NOT_UTF8 = b"\x0a\x02\xff\xfe"
TIMEOUT = 20.0
PLACE = re.compile(r"\[\d+\]")
MAX_VIOLATIONS = 20
MAX_DETAILS_BYTES = 6 * 1024
# Valid on their own, so that what is added is all that is wrong.
BASES: list[Message] = [GenerateRequest(prompt="hi"), ChatRequest(messages=[ChatMessage(content="hi")])]
REQUESTS: dict[str, Message] = {"Generate": BASES[0], "Chat": BASES[1]}

LIBRARY = [
    ("/grpc.health.v1.Health/Check", False, False),
    ("/grpc.health.v1.Health/Watch", False, True),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", True, True),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True, True),
]


async def _asked(channel: grpc.aio.Channel, method: str, data: bytes, *, requests: bool, answers: bool) -> Refusal:
    """Sends raw bytes to a method of any kind; it must refuse them."""
    if requests:
        return (await read_to_refusal(bidi_call(channel, method)(iter([data]), timeout=TIMEOUT)))[1]
    if answers:
        return (await read_to_refusal(stream_call(channel, method)(data, timeout=TIMEOUT)))[1]
    return await refused(unary_call(channel, method)(data, timeout=TIMEOUT))


def _own_methods() -> Iterator[tuple[str, bool, bool]]:
    for one in SERVICES:
        for method in one.methods:
            yield f"/{one.full_name}/{method.name}", method.client_streaming, method.server_streaming


def _has_string_first(method: str) -> bool:
    found = next(one for each in SERVICES for one in each.methods if method.endswith(f"{each.full_name}/{one.name}"))
    first = found.input_type.fields_by_number.get(1)
    return first is not None and first.type == FieldDescriptor.TYPE_STRING


@pytest.mark.asyncio
async def test_bytes_that_are_no_message_are_internal_on_every_method_and_name_no_type() -> None:
    engine = ScriptedEngine()
    asked = []
    async with service(engine) as running:
        for method, requests, answers in [*_own_methods(), *LIBRARY]:
            bodies = [NOT_PROTOBUF]
            if method.startswith("/grpc.") or _has_string_first(method):
                bodies.append(NOT_UTF8)
            for data in bodies:
                told = await _asked(running.channel, method, data, requests=requests, answers=answers)
                assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "MALFORMED_REQUEST"), method
                assert told.message == "the request is not a message of this method"
                assert told.rpc_id
                asked.append(method)
        assert not running.app.runs.list("local")
    assert len(set(asked)) >= 15
    assert len(asked) > len(set(asked))
    assert engine.started == 0


@pytest.mark.asyncio
async def test_500_violations_are_told_as_twenty_that_fit_into_trailers() -> None:
    engine = ScriptedEngine()
    bad = ChatRequest(messages=[ChatMessage(role=99, content="hi") for _ in range(500)])  # type: ignore[arg-type]
    async with service(engine) as running:
        answers = [await refused(running.chat.Chat(bad)) for _ in range(20)]
        answers.append((await read_to_refusal(running.chat.StreamChat(bad)))[1])
    for told in answers:
        # A client that finds the trailers too large says RESOURCE_EXHAUSTED, for some calls and not for others.
        assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert len(told.violations) == MAX_VIOLATIONS
        assert told.violations[19][0] == "messages[19].role"
        assert "and 499 more" in told.message
        assert told.size <= MAX_DETAILS_BYTES
    assert engine.started == 0


@pytest.mark.asyncio
@given(data=st.data())
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
async def test_values_that_break_a_rule_are_refused_by_name_and_reach_no_engine(data: st.DataObject) -> None:
    engine = ScriptedEngine()
    async with service(engine) as running:
        for base in BASES:
            found = rules(type(base))
            assert len(found) > 50
            for rule in found:
                value = data.draw(rule.bad, label=rule.path)
                told = await refused(_submitted(running, rule.broken(base, value)))
                assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"), rule.path
                assert rule.path in [PLACE.sub("", field) for field, _ in told.violations], rule.path
        assert not running.app.runs.list("local")
    assert engine.started == 0


@pytest.mark.asyncio
async def test_a_request_without_its_one_needed_field_is_refused_by_name() -> None:
    engine = ScriptedEngine()
    empty: list[tuple[Message, str]] = [
        (GenerateRequest(), "input"),
        (GenerateRequest(prompt=""), "prompt"),
        (ChatRequest(), "messages"),
        (GenerateRequest(prompt="hi", after={}), "after"),  # type: ignore[arg-type]
        (GenerateRequest(prompt_ids={"ids": [1]}, system="be kind"), "system"),  # type: ignore[arg-type]
    ]
    async with service(engine) as running:
        for request, field in empty:
            told = await refused(_submitted(running, request))
            assert told.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [name for name, _ in told.violations] == [field]
    assert engine.started == 0


@pytest.mark.asyncio
async def test_a_number_that_no_enum_has_is_refused_wherever_it_stands() -> None:
    engine = ScriptedEngine()
    seen = []
    async with service(engine) as running:
        for one in SERVICES:
            for method in one.methods:
                if method.client_streaming:
                    # An item of a batch fails alone: test_batch.py.
                    continue
                make = message_factory.GetMessageClass(method.input_type)
                for steps in paths(method.input_type):
                    if steps[-1].enum_type is None:
                        continue
                    request = make()
                    _set(request, steps, 99)
                    told = await _asked(
                        running.channel,
                        f"/{one.full_name}/{method.name}",
                        request.SerializeToString(),
                        requests=False,
                        answers=method.server_streaming,
                    )
                    assert told.code is grpc.StatusCode.INVALID_ARGUMENT, (method.name, steps[-1].name)
                    seen.append((method.name, steps[-1].name))
    assert len(seen) >= 20
    assert engine.started == 0


@pytest.mark.asyncio
async def test_fields_that_nobody_knows_are_ignored() -> None:
    # Field 1000, a string; and once more inside a message.
    unknown = b"\xc2\x3e\x03abc"
    request = GenerateRequest(prompt="hi", stopping={"max_tokens": 2})  # type: ignore[arg-type]
    request.sampling.MergeFromString(unknown)
    async with service() as running:
        call = unary_call(running.channel, "/tokenwire.v1.GenerateService/Generate")
        await call(request.SerializeToString() + unknown)


@pytest.mark.asyncio
async def test_of_a_oneof_that_is_set_twice_the_last_one_counts() -> None:
    twice = (
        GenerateRequest(prompt="hi").SerializeToString()
        + GenerateRequest(
            prompt_ids={"ids": [7]}  # type: ignore[arg-type]
        ).SerializeToString()
    )
    prompts = []

    def script(job: Job) -> list[Step]:
        prompts.append((job.submission.prompt, job.submission.prompt_ids))
        return words("hi")

    async with service(ScriptedEngine(script=script)) as running:
        await unary_call(running.channel, "/tokenwire.v1.GenerateService/Generate")(twice)
    assert prompts == [(None, (7,))]


@pytest.mark.asyncio
async def test_a_request_over_the_size_limit_is_resource_exhausted() -> None:
    engine = ScriptedEngine()
    async with service(engine, message_max_bytes=100_000) as running:
        fits = GenerateRequest(prompt="x" * 90_000)
        assert (await refused(running.generate.Generate(fits))).reason == "CONTEXT_LENGTH_EXCEEDED"
        large = GenerateRequest(prompt="x" * 100_001)
        assert (await refused(running.generate.Generate(large))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        streamed = await read_to_refusal(running.generate.StreamGenerate(large))
        assert streamed[1].code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not running.app.runs.list("local")
    assert engine.started == 0


@pytest.mark.asyncio
async def test_a_method_that_does_not_exist_is_unimplemented_with_and_without_its_service() -> None:
    async with service() as running:
        for method in (
            "/tokenwire.v1.GenerateService/Nothing",
            "/nothing.v1.Nothing/Nothing",
            "/grpc.health.v1.Health/No",
        ):
            told = await refused(unary_call(running.channel, method)(b"", timeout=TIMEOUT))
            assert told.code is grpc.StatusCode.UNIMPLEMENTED
            _, told = await read_to_refusal(stream_call(running.channel, method)(b"", timeout=TIMEOUT))
            assert told.code is grpc.StatusCode.UNIMPLEMENTED


def _submitted(running: Service, request: Message) -> Any:
    if isinstance(request, ChatRequest):
        return running.chat.Chat(request)
    assert isinstance(request, GenerateRequest)
    return running.generate.Generate(request)


def _set(request: Message, steps: tuple[FieldDescriptor, ...], value: int) -> None:
    target: Any = request
    for step in steps[:-1]:
        target = getattr(target, step.name)
        if step.is_repeated:
            target = target.add()
    setattr(target, steps[-1].name, value)
