"""Every error that a client can bring about: its status, and what google.rpc details say of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from harness.refusals import Refusal, read_to_refusal, refused
from harness.service import Service, service
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Piece
from tokenwire.engines.scripted import Cut, Emit, Fail, Pause, ScriptedEngine, Step, words
from tokenwire.engines.status import EngineState
from tokenwire.v1.cursor_pb2 import ChannelOffset, Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SENTENCE, Buffering, Delivery
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_ERROR
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.model_service_pb2 import GetModelRequest
from tokenwire.v1.run_pb2 import Limits, RunOptions
from tokenwire.v1.run_service_pb2 import (
    AttachRunRequest,
    CancelRunRequest,
    GetRunRequest,
    ListRunsRequest,
    WaitRunRequest,
)
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

MAX_DETAILS_BYTES = 6 * 1024
WAVE = "a🌊b"

Ask = Callable[[Service], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request and the error that it must get."""

    name: str
    ask: Ask
    code: grpc.StatusCode
    reason: str
    retryable: bool = False
    retry_seconds: float | None = None
    resource: tuple[str, str] | None = None
    fields: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    says: str = ""
    script: list[Step] = field(default_factory=lambda: words(WAVE))
    settings: dict[str, Any] = field(default_factory=dict)


def _generate(**fields: Any) -> Ask:
    request = GenerateRequest(**{"prompt": "hi", **fields})
    return lambda running: running.generate.Generate(request)


async def _after(running: Service, cursor: Cursor) -> None:
    """Runs a request to its end, and reads it again after a cursor."""
    first = await running.generate.Generate(GenerateRequest(prompt="hi", run=RunOptions(request_id="one")))
    assert first.choices[0].text == WAVE
    async for _ in running.runs.AttachRun(AttachRunRequest(run_id=first.run_id, after=cursor)):
        pass


async def _other_request_of_one_id(running: Service) -> None:
    await running.generate.Generate(GenerateRequest(prompt="hi", run=RunOptions(request_id="one")))
    await running.generate.Generate(GenerateRequest(prompt="ho", run=RunOptions(request_id="one")))


async def _all_loading(running: Service) -> None:
    running.app.fleet.engines[0].status.set(EngineState.LOADING)
    await running.generate.Generate(GenerateRequest(prompt="hi"))


async def _no_models(running: Service) -> None:
    running.app.fleet.engines[0].status.set(EngineState.UNAVAILABLE, ())
    await running.generate.Generate(GenerateRequest(prompt="hi"))


async def _draining(running: Service) -> None:
    await running.app.runs.drain(0)
    await running.generate.Generate(GenerateRequest(prompt="hi"))


async def _text_given_up(running: Service) -> None:
    first = await running.generate.Generate(GenerateRequest(prompt="hi"))
    await running.generate.Generate(GenerateRequest(prompt="hi"))
    await running.runs.WaitRun(WaitRunRequest(run_id=first.run_id))


def _unknown_run(ask: Ask) -> Case:
    return Case(
        name="unknown run",
        ask=ask,
        code=grpc.StatusCode.NOT_FOUND,
        reason="RUN_NOT_FOUND",
        resource=("run", "run_nothing"),
    )


def _unsupported(ask: Ask, path: str, **metadata: str) -> Case:
    return Case(
        name=path,
        ask=ask,
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="FEATURE_UNSUPPORTED",
        fields=(path,),
        metadata=metadata,
        says=path,
    )


LOST = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is lost", retryable=True, retry_after=1.5)
ID = "run_nothing"
CASES = [
    Case(
        name="unknown model",
        ask=_generate(model="nothing"),
        code=grpc.StatusCode.NOT_FOUND,
        reason="MODEL_NOT_FOUND",
        resource=("model", "nothing"),
        says="scripted",
    ),
    Case(
        name="unknown model, asked for by name",
        ask=lambda running: running.models.GetModel(GetModelRequest(name="nothing")),
        code=grpc.StatusCode.NOT_FOUND,
        reason="MODEL_NOT_FOUND",
        resource=("model", "nothing"),
        says="scripted",
    ),
    _unknown_run(lambda running: running.runs.GetRun(GetRunRequest(run_id=ID))),
    _unknown_run(lambda running: running.runs.WaitRun(WaitRunRequest(request_id=ID))),
    _unknown_run(lambda running: running.runs.CancelRun(CancelRunRequest(run_id=ID))),
    _unknown_run(lambda running: _read(running.runs.AttachRun(AttachRunRequest(run_id=ID)))),
    _unknown_run(_generate(run=RunOptions(request_id=ID), after=Cursor(seq=1))),
    Case(
        name="request id taken",
        ask=_other_request_of_one_id,
        code=grpc.StatusCode.ALREADY_EXISTS,
        reason="REQUEST_ID_TAKEN",
        resource=("request", "one"),
    ),
    Case(
        name="cursor past the run",
        ask=lambda running: _after(running, Cursor(seq=99)),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="CURSOR_AHEAD",
        fields=("after.seq",),
    ),
    Case(
        name="cursor past the text",
        ask=lambda running: _after(running, Cursor(seq=1, ahead=[ChannelOffset(byte_offset=99)])),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="CURSOR_AHEAD",
        fields=("after.ahead.byte_offset",),
    ),
    Case(
        name="cursor inside a character",
        ask=lambda running: _after(running, Cursor(seq=1, ahead=[ChannelOffset(byte_offset=3)])),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="CURSOR_INVALID",
        fields=("after.ahead.byte_offset",),
    ),
    _unsupported(_generate(sampling=Sampling(top_k=5)), "sampling.top_k", field="sampling.top_k", engine="scripted"),
    _unsupported(_generate(stopping=Stopping(stop=["x"])), "stopping.stop", field="stopping.stop", engine="scripted"),
    _unsupported(_generate(limits=Limits(allow_partial=True)), "limits.allow_partial"),
    _unsupported(
        _generate(delivery=Delivery(buffering=Buffering(mode=BUFFERING_MODE_SENTENCE))), "delivery.buffering.mode"
    ),
    _unsupported(_generate(delivery=Delivery(language="de")), "delivery.language"),
    Case(
        name="prompt over the context window",
        ask=_generate(prompt="x" * 5000),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="CONTEXT_LENGTH_EXCEEDED",
        fields=("prompt",),
        metadata={"limit": "4096", "got": "5000"},
    ),
    Case(
        name="unknown page",
        ask=lambda running: running.runs.ListRuns(ListRunsRequest(page_token="nothing")),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        fields=("page_token",),
    ),
    Case(
        name="journal full",
        ask=_generate(),
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="JOURNAL_FULL",
        settings={"journal_max_bytes": 1000},
    ),
    Case(
        name="text given up for a newer run",
        ask=_text_given_up,
        code=grpc.StatusCode.OUT_OF_RANGE,
        reason="TEXT_DROPPED",
        script=words("x" * 4000),
        settings={"journal_max_bytes": 9000},
    ),
    Case(
        name="model still loading",
        ask=_all_loading,
        code=grpc.StatusCode.UNAVAILABLE,
        reason="MODEL_LOADING",
        retryable=True,
        retry_seconds=5.0,
        settings={"load_seconds": 0.1},
    ),
    Case(
        name="no engine",
        ask=_no_models,
        code=grpc.StatusCode.UNAVAILABLE,
        reason="ENGINE_UNREACHABLE",
        retryable=True,
        retry_seconds=1.0,
    ),
    Case(
        name="draining",
        ask=_draining,
        code=grpc.StatusCode.UNAVAILABLE,
        reason="DRAINING",
        retryable=True,
        retry_seconds=1.0,
    ),
    Case(
        name="engine fails before its first text",
        ask=_generate(),
        code=grpc.StatusCode.UNAVAILABLE,
        reason="ENGINE_LOST",
        retryable=True,
        retry_seconds=1.5,
        script=[Fail(LOST)],
    ),
    Case(
        name="no first token in time",
        ask=_generate(limits={"first_token_timeout": {"nanos": 100_000_000}}),
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        reason="FIRST_TOKEN_TIMEOUT",
        retryable=True,
        script=[Pause(None)],
    ),
    Case(
        name="engine fails after text, for one who waits for the whole",
        ask=_generate(),
        code=grpc.StatusCode.DATA_LOSS,
        reason="ENGINE_LOST",
        retryable=True,
        retry_seconds=1.5,
        script=[*words("some")[:-1], Fail(LOST)],
    ),
]


async def _read(call: Any) -> list[Event]:
    return [event async for event in call]


def _is_whole(told: Refusal) -> None:
    """Asserts what every error carries."""
    assert told.domain == "tokenwire"
    assert told.rpc_id
    assert told.message
    assert "\n" not in told.message
    assert told.metadata["retryable"] in ("true", "false")
    assert 0 < told.size <= MAX_DETAILS_BYTES


@pytest.mark.asyncio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_an_error_has_its_code_its_reason_and_its_details(case: Case) -> None:
    engine = ScriptedEngine(script=lambda job: case.script)
    async with service(engine, **{"failover": "none"} | case.settings) as running:
        told = await refused(case.ask(running))
    _is_whole(told)
    assert (told.code, told.reason) == (case.code, case.reason)
    assert told.metadata["retryable"] == ("true" if case.retryable else "false")
    assert told.retry_seconds == case.retry_seconds
    assert told.resource == case.resource
    assert tuple(name for name, _ in told.violations) == case.fields
    assert told.metadata.items() >= case.metadata.items()
    assert case.says in told.message


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What an engine does after it has written text, and what a stream is then told."""

    script: tuple[Step, ...]
    code: grpc.StatusCode
    reason: str


LOSSES = [
    Loss(script=(Fail(LOST),), code=grpc.StatusCode.DATA_LOSS, reason="ENGINE_LOST"),
    Loss(script=(Cut(),), code=grpc.StatusCode.DATA_LOSS, reason="ENGINE_LOST"),
    Loss(script=(Pause(None),), code=grpc.StatusCode.DATA_LOSS, reason="ENGINE_STALLED"),
    Loss(
        script=(Fail(EngineError(Code.RESOURCE_EXHAUSTED, "ENGINE_OUT_OF_MEMORY", "no memory", retryable=True)),),
        code=grpc.StatusCode.DATA_LOSS,
        reason="ENGINE_OUT_OF_MEMORY",
    ),
    Loss(
        script=(Emit((Piece(channel=Channel(7), text="of no choice"),)),),
        code=grpc.StatusCode.DATA_LOSS,
        reason="UPSTREAM_PROTOCOL",
    ),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.reason} {type(loss.script[0]).__name__}")
async def test_a_run_that_dies_after_text_ends_with_its_error_then_the_status_says_where(loss: Loss) -> None:
    script = [*words("some text")[:-1], *loss.script]
    engine = ScriptedEngine(script=lambda job: script)
    request = GenerateRequest(prompt="hi", limits={"stall_timeout": {"nanos": 100_000_000}})  # type: ignore[arg-type]
    async with service(engine, failover="none") as running:
        events, told = await read_to_refusal(running.generate.StreamGenerate(request))
    _is_whole(told)
    assert (told.code, told.reason) == (loss.code, loss.reason)
    assert "".join(event.delta.text for event in events) == "some text"
    assert [event.WhichOneof("event") for event in events].count("end") == 1
    last = events[-1]
    assert last.end.choices[0].finish_reason == FINISH_REASON_ERROR
    assert (last.end.error.code, last.end.error.reason) == (loss.code.value[0], loss.reason)
    assert last.end.error.message == told.message
    assert told.metadata["run_id"] == events[0].start.run_id
    assert told.metadata["cursor"] == f'{{"seq": {last.cursor.seq}}}'


@pytest.mark.asyncio
async def test_a_run_that_dies_before_text_ends_with_its_error_too() -> None:
    engine = ScriptedEngine(script=lambda job: [Cut()])
    async with service(engine) as running:
        events, told = await read_to_refusal(running.generate.StreamGenerate(GenerateRequest(prompt="hi")))
    _is_whole(told)
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
    assert told.retry_seconds == 1.0
    assert events[-1].end.error.reason == "ENGINE_LOST"


@pytest.mark.asyncio
async def test_a_bug_in_an_engine_is_internal_and_its_text_stays_inside() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("some")[:-1], Fail(ValueError("secret=/etc/passwd"))])
    async with service(engine) as running:
        events, told = await read_to_refusal(running.generate.StreamGenerate(GenerateRequest(prompt="hi")))
    assert told.code is grpc.StatusCode.INTERNAL
    assert events[-1].end.error.reason == "INTERNAL"
    assert "secret" not in f"{told}{events}"


@pytest.mark.asyncio
async def test_what_two_calls_are_told_of_the_same_unknown_thing_differs_in_the_rpc_id_alone() -> None:
    async with service() as running:
        told = [await refused(running.runs.GetRun(GetRunRequest(run_id=ID))) for _ in range(2)]
    first, second = (vars(one) for one in told)
    assert first.pop("rpc_id") != second.pop("rpc_id")
    assert first == second
