"""Each RPC leaves one line in the log and one span, with how it really ended, and without a word of what it said."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from harness.byte_calls import unary_call
from harness.endpoints import STREAM, UNARY, Odd, odd
from harness.raw_http2 import raw_http2
from harness.refusals import read_to_refusal, refused
from harness.seen import Seen, seen
from harness.service import service
from harness.waiting import until
from tokenwire.domain.errors import Code, EngineError, TokenwireError
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine, Step, words
from tokenwire.telemetry import names
from tokenwire.transport.call import Call, Handler
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_service_pb2 import GetRunRequest
from tokenwire.v1.server_service_pb2 import ServerInfo

CANARY = "my-secret-prompt"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@asynccontextmanager
async def watching(unary: Handler | None = None, stream: Handler | None = None) -> AsyncIterator[tuple[Odd, Seen]]:
    with seen() as told:
        async with odd(unary=unary, stream=stream, tracer=told.tracers.get_tracer(names.SCOPE)) as running:
            yield running, told


def _says(seen: tuple[dict[str, Any], ReadableSpan], method: str, code: str, reason: str | None = None) -> None:
    """Asserts what line and span say."""
    line, span = seen
    fault = code in {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
    assert (line["method"], line["code"], line["reason"]) == (method, code, reason)
    assert line["log_level"] == "info"
    assert span.name == method.removeprefix("/")
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == code
    assert span.attributes["rpc.method"] == method.removeprefix("/")
    assert span.status.status_code is (StatusCode.ERROR if fault else StatusCode.UNSET)
    assert span.attributes.get("error.type") == ((reason or code) if fault else None)
    assert span.context is not None
    assert line["trace_id"] == f"{span.context.trace_id:032x}"
    assert not span.events
    assert not span.status.description
    assert CANARY not in f"{line}{span.to_json()}"


async def _waits(request: Any, call: Call) -> None:
    if call.method == STREAM:
        await call.write(ServerInfo(version=CANARY))
    await asyncio.Event().wait()


async def _floods(request: Any, call: Call) -> None:
    while True:
        await call.write(ServerInfo(version=CANARY * 1000))


@pytest.mark.asyncio
async def test_a_call_that_succeeds_is_ok_and_its_messages_are_counted() -> None:
    async def handler(request: Any, call: Call) -> None:
        for _ in range(3):
            await call.write(ServerInfo(version=CANARY))

    async with watching(stream=handler) as (running, seen):
        assert len([message async for message in running.stream()]) == 3
        line, span = await seen.one()
    _says((line, span), STREAM, "OK")
    assert line["messages"] == 3
    assert line["rpc_id"] == "rpc-0"
    assert line["ms"] >= 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error",
    [
        TokenwireError(Code.NOT_FOUND, "RUN_NOT_FOUND", CANARY),
        TokenwireError(Code.UNAVAILABLE, "DRAINING", CANARY),
        TokenwireError(Code.DATA_LOSS, "ENGINE_LOST", CANARY),
        TokenwireError(Code.DEADLINE_EXCEEDED, "FIRST_TOKEN_TIMEOUT", CANARY),
    ],
)
async def test_an_expected_error_is_told_by_code_and_reason_alone(error: TokenwireError) -> None:
    async def handler(request: Any, call: Call) -> None:
        raise error

    async with watching(unary=handler) as (running, seen):
        told = await refused(running.unary())
        line = await seen.one()
    assert told.code.name == error.code.name
    _says(line, UNARY, error.code.name, error.reason)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "error", [ValueError(CANARY), asyncio.CancelledError(CANARY), ExceptionGroup(CANARY, [ValueError(CANARY)])]
)
async def test_a_bug_is_internal_in_line_and_span_and_logged_once_with_its_traceback(error: BaseException) -> None:
    async def handler(request: Any, call: Call) -> None:
        raise error

    async with watching(unary=handler) as (running, seen):
        await refused(running.unary())
        line = await seen.one()
        bugs = [entry for entry in seen.logged if entry["event"] == "bug"]
    _says(line, UNARY, "INTERNAL")
    assert [(bug["rpc_id"], bug["method"], bug["exc_info"]) for bug in bugs] == [("rpc-0", UNARY, error)]


@pytest.mark.asyncio
async def test_an_answer_that_is_no_message_is_internal() -> None:
    async def handler(request: Any, call: Call) -> Any:
        return CANARY

    async with watching(unary=handler) as (running, seen):
        await refused(running.unary())
        line = await seen.one()
    _says(line, UNARY, "INTERNAL")


@pytest.mark.asyncio
async def test_bytes_that_are_no_message_are_told_by_reason() -> None:
    async with watching(unary=_waits) as (running, seen):
        await refused(unary_call(running.channel, UNARY)(b"\xff" + CANARY.encode()))
        line = await seen.one()
    _says(line, UNARY, "INTERNAL", "MALFORMED_REQUEST")


@pytest.mark.asyncio
async def test_a_cancel_by_the_client_is_cancelled() -> None:
    async with watching(stream=_waits) as (running, seen):
        call = running.stream(timeout=60)
        await call.read()
        call.cancel()
        line = await seen.one()
    _says(line, STREAM, "CANCELLED")


@pytest.mark.asyncio
async def test_a_cancel_in_the_middle_of_a_write_is_cancelled() -> None:
    async with watching(stream=_floods) as (running, seen), raw_http2(running.port) as raw:
        stream = await raw.request(STREAM)
        await raw.exhausted(stream)
        await raw.reset(stream)
        line = await seen.one()
    _says(line, STREAM, "CANCELLED")
    # Nine go into the window; the messages in flight count too, and no more.
    assert 1 <= line[0]["messages"] < 20


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unary", "stream"])
@pytest.mark.parametrize("seconds", [0.5, 1.001])
async def test_a_deadline_that_passes_is_deadline_exceeded(kind: str, seconds: float) -> None:
    async with watching(unary=_waits, stream=_waits) as (running, seen):
        call: Any = running.unary(timeout=seconds) if kind == "unary" else running.stream(timeout=seconds)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        line = await seen.one()
    _says(line, UNARY if kind == "unary" else STREAM, "DEADLINE_EXCEEDED")


@pytest.mark.asyncio
async def test_a_deadline_that_passes_in_the_middle_of_a_write_is_deadline_exceeded() -> None:
    async with watching(stream=_floods) as (running, seen), raw_http2(running.port) as raw:
        # The client says its deadline and does not keep it: the server ends the call on its own.
        await raw.request(STREAM, headers=[("grpc-timeout", "1S")])
        line = await seen.one()
    _says(line, STREAM, "DEADLINE_EXCEEDED")


@pytest.mark.asyncio
async def test_a_client_that_is_gone_is_cancelled_also_with_a_deadline_to_come() -> None:
    async with watching(stream=_waits) as (running, seen):
        async with raw_http2(running.port) as raw:
            stream = await raw.request(STREAM, headers=[("grpc-timeout", "60S")])
            await raw.wait(lambda: bool(raw.data[stream]), "the first message")
        line = await seen.one()
    _says(line, STREAM, "CANCELLED")


@pytest.mark.asyncio
async def test_a_span_continues_the_clients_trace() -> None:
    async def handler(request: Any, call: Call) -> ServerInfo:
        return ServerInfo()

    async with watching(unary=handler) as (running, seen):
        await running.unary(metadata=(("traceparent", PARENT),))
        line, span = await seen.one()
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.asyncio
async def test_probes_are_logged_as_debug_with_the_status_that_their_library_set() -> None:
    with structlog.testing.capture_logs() as logged:
        async with service() as running:
            stub = HealthStub(running.channel)
            await stub.Check(HealthCheckRequest())
            await refused(stub.Check(HealthCheckRequest(service="nothing")))
    lines = [(line["log_level"], line["method"], line["code"]) for line in logged if line["event"] == "rpc"]
    assert lines == [("debug", "/grpc.health.v1.Health/Check", code) for code in ("OK", "NOT_FOUND")]


@pytest.mark.asyncio
async def test_nothing_of_a_prompt_or_an_answer_is_logged_or_traced() -> None:
    prompt = GenerateRequest(prompt=CANARY)
    scripts: Iterator[list[Step]] = iter(
        [
            words(CANARY),
            [*words(CANARY)[:-1], Fail(EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is lost"))],
            [*words(CANARY)[:-1], Fail(ValueError("a bug"))],
            [Pause(None)],
        ]
    )
    engine = ScriptedEngine(script=lambda job: next(scripts))
    with seen() as told:
        async with service(engine) as running:
            assert (await running.generate.Generate(prompt)).choices[0].text == CANARY
            await read_to_refusal(running.generate.StreamGenerate(prompt))
            await read_to_refusal(running.generate.StreamGenerate(prompt))
            assert await running.generate.Generate(prompt, timeout=1.0).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await refused(running.generate.Generate(GenerateRequest(prompt=CANARY, model=CANARY)))
            await refused(running.runs.GetRun(GetRunRequest(run_id=CANARY)))
            await refused(running.generate.Generate(GenerateRequest(prompt=CANARY, system="x", after={})))  # type: ignore[arg-type]
            await until(lambda: len(told.lines) == 7, "seven calls")
    assert [line["code"] for line in told.lines] == [
        *("OK", "DATA_LOSS", "INTERNAL", "DEADLINE_EXCEEDED", "NOT_FOUND", "NOT_FOUND", "INVALID_ARGUMENT")
    ]
    rpcs = [span.attributes for span in told.spans if span.kind is SpanKind.SERVER and span.attributes]
    assert [one["rpc.response.status_code"] for one in rpcs] == [line["code"] for line in told.lines]
    assert CANARY not in "".join(span.to_json() for span in told.spans)
    assert CANARY not in str(told.logged)
