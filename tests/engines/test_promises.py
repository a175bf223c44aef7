"""The promises that only a real engine can show: it stops, it comes back, its text is whole."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from engines.embedded import CONTEXT, SLOTS, busy_slots, child_of, slots_are_freed, started
from harness.refusals import refused
from harness.service import Service, service
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.finish_pb2 import (
    FINISH_REASON_CANCELLED,
    FINISH_REASON_LENGTH,
    FINISH_REASON_TOOL_CALLS,
    STATUS_CODE_DATA_LOSS,
)
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import ROLE_SYSTEM, Message, Tool, ToolChoice
from tokenwire.v1.model_service_pb2 import DetokenizeRequest, TokenizeRequest
from tokenwire.v1.run_pb2 import FAILOVER_POLICY_NONE, RUN_STATE_FAILED, RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest, GetRunRequest, WaitRunRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

pytestmark = pytest.mark.llamacpp


@pytest_asyncio.fixture
async def engine(cache: Path, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """Returns an engine with a child of its own: it is killed here."""
    async with started(cache, tmp_path) as engine:
        yield engine


@pytest_asyncio.fixture
async def running(engine: LlamaCppEngine) -> AsyncIterator[Service]:
    async with service(engine) as one:
        yield one


def endless(request_id: str, **run: object) -> GenerateRequest:
    return GenerateRequest(
        prompt="Once upon a time",
        stopping=Stopping(max_tokens=CONTEXT - 20, ignore_eos=True),
        run=RunOptions(request_id=request_id, **run),  # type: ignore[arg-type]
    )


async def three_deltas(stream: grpc.aio.UnaryStreamCall[GenerateRequest, Event]) -> list[Event]:
    events: list[Event] = []
    while sum(event.HasField("delta") for event in events) < 3:
        event = await stream.read()
        assert isinstance(event, Event)
        events.append(event)
    return events


async def remaining(stream: grpc.aio.UnaryStreamCall[GenerateRequest, Event]) -> list[Event]:
    events: list[Event] = []
    while isinstance(event := await stream.read(), Event):
        events.append(event)
    return events


def text(events: list[Event]) -> str:
    return "".join(event.delta.text for event in events)


@pytest.mark.asyncio
async def test_cancelling_a_run_stops_llama_cpp(running: Service, engine: LlamaCppEngine) -> None:
    stream = running.generate.StreamGenerate(endless("a"))
    seen = await three_deltas(stream)
    assert await busy_slots(engine) == 1
    await running.runs.CancelRun(CancelRunRequest(request_id="a"))
    await slots_are_freed(engine)
    seen += await remaining(stream)
    assert seen[-1].end.choices[0].finish_reason == FINISH_REASON_CANCELLED
    assert hashlib.sha256(text(seen).encode()).hexdigest() == seen[-1].end.channels[0].sha256


@pytest.mark.asyncio
async def test_a_client_that_leaves_stops_llama_cpp(running: Service, engine: LlamaCppEngine) -> None:
    stream = running.generate.StreamGenerate(endless("a"))
    await three_deltas(stream)
    stream.cancel()
    await slots_are_freed(engine)
    run = await running.runs.GetRun(GetRunRequest(request_id="a"))
    assert (run.state, run.error.reason) == (RUN_STATE_FAILED, "ORPHANED")


@pytest.mark.asyncio
async def test_the_end_of_the_orphan_grace_stops_llama_cpp(running: Service, engine: LlamaCppEngine) -> None:
    stream = running.generate.StreamGenerate(endless("a", orphan_grace=Duration(nanos=200_000_000)))
    await three_deltas(stream)
    stream.cancel()
    with pytest.raises(grpc.aio.AioRpcError):
        await running.runs.WaitRun(WaitRunRequest(request_id="a"), timeout=0.05)
    # This reader has begun the grace anew; nobody comes after it.
    await slots_are_freed(engine, 0.2 + 2.0)
    run = await running.runs.GetRun(GetRunRequest(request_id="a"))
    assert run.error.reason == "ORPHANED"


@pytest.mark.asyncio
async def test_a_second_client_gets_the_byte_exact_rest(running: Service) -> None:
    stream = running.generate.StreamGenerate(endless("a", detached=True))
    seen = await three_deltas(stream)
    stream.cancel()
    async with grpc.aio.insecure_channel(running.address) as channel:
        second = Service(running.app, running.port, channel)
        attach = AttachRunRequest(request_id="a", after=seen[-1].cursor)
        rest = [event async for event in second.runs.AttachRun(attach)]
    whole = text(seen) + text(rest)
    assert hashlib.sha256(whole.encode()).hexdigest() == rest[-1].end.channels[0].sha256
    assert rest[-1].end.choices[0].finish_reason == FINISH_REASON_LENGTH


@pytest.mark.asyncio
async def test_a_killed_engine_is_said_and_the_next_request_succeeds(running: Service, engine: LlamaCppEngine) -> None:
    asked = endless("a")
    asked.run.failover = FAILOVER_POLICY_NONE
    stream = running.generate.StreamGenerate(asked)
    seen = await three_deltas(stream)
    os.kill(child_of(engine), signal.SIGKILL)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await remaining(stream)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    # Attaching gives the text so far, and the end with its error.
    again = running.runs.AttachRun(AttachRunRequest(request_id="a"))
    events: list[Event] = []
    while not events or not events[-1].HasField("end"):
        event = await again.read()
        assert isinstance(event, Event)
        events.append(event)
    assert await again.code() is grpc.StatusCode.DATA_LOSS
    assert events[-1].end.error.code == STATUS_CODE_DATA_LOSS
    assert text(events).startswith(text(seen))
    async with asyncio.timeout(5):
        while not (await answered(running)):
            await engine.status.changed()


async def answered(running: Service) -> bool:
    """Returns whether a request succeeds; one that meets the dying engine is told to come again."""
    call = running.generate.Generate(GenerateRequest(prompt="Hello", stopping=Stopping(max_tokens=4)))
    code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return code is grpc.StatusCode.OK


@pytest.mark.asyncio
async def test_a_chat_is_rendered_and_its_tokens_are_told(running: Service) -> None:
    messages = [Message(role=ROLE_SYSTEM, content="Be brief."), Message(content="Hi")]
    asked = ChatRequest(messages=messages, sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=8))
    asked.output.token_ids = True
    result = await running.chat.Chat(asked)
    rendered = await running.models.Tokenize(TokenizeRequest(messages=messages))
    assert result.usage.prompt_tokens == rendered.count
    assert "".join(token.text for token in rendered.tokens).startswith("<|im_start|>system\nBe brief.")
    detokenized = await running.models.Detokenize(DetokenizeRequest(token_ids=result.choices[0].token_ids))
    assert detokenized.text.startswith(result.choices[0].text)


@pytest.mark.asyncio
async def test_a_prompt_over_the_window_is_refused_with_limit_and_got(running: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.generate.Generate(GenerateRequest(prompt="word " * 2 * CONTEXT))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert b"CONTEXT_LENGTH_EXCEEDED" in bytes(details)
    assert str(CONTEXT).encode() in bytes(details)


@pytest.mark.asyncio
async def test_eight_streams_at_once_all_come_to_their_end(running: Service) -> None:
    async def one(number: int) -> str:
        asked = GenerateRequest(prompt=f"Story {number}:", stopping=Stopping(max_tokens=10, ignore_eos=True))
        return text([event async for event in running.generate.StreamGenerate(asked)])

    texts = await asyncio.gather(*(one(number) for number in range(8)))
    assert all(texts)


@pytest.mark.asyncio
async def test_what_only_the_engine_can_refuse_is_refused_by_its_field_too(running: Service) -> None:
    refusal = await refused(running.generate.Generate(GenerateRequest(prompt="a", sampling=Sampling(n=99))))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in refusal.violations] == ["sampling.n"]
    assert (refusal.metadata["limit"], refusal.metadata["got"]) == (str(SLOTS), "99")


@pytest.mark.asyncio
async def test_a_tool_call_comes_through_with_its_arguments_as_they_are_written(running: Service) -> None:
    asked = ChatRequest(
        messages=[Message(content="What time is it?")],
        tools=[Tool(name="clock")],
        tool_choice=ToolChoice(name="clock"),
        parallel_tool_calls=False,
        sampling=Sampling(temperature=0),
    )
    events = [event async for event in running.chat.StreamChat(asked)]
    calls = [event.tool_call_delta for event in events if event.HasField("tool_call_delta")]
    assert [call.name for call in calls if call.name] == ["clock"]
    assert calls[0].id.startswith("call_")
    assert "".join(call.arguments for call in calls) == "{}"
    assert text(events) == ""
    assert events[-1].end.choices[0].finish_reason == FINISH_REASON_TOOL_CALLS


@pytest.mark.asyncio
async def test_tools_that_cannot_be_held_to_are_refused_by_name(running: Service) -> None:
    tool = Tool(name="clock", parameters_schema='{"properties": {"x": {"not": {"type": "string"}}}}')
    refusal = await refused(running.chat.Chat(ChatRequest(messages=[Message(content="Hi")], tools=[tool])))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in refusal.violations] == ["tools.parameters_schema"]
