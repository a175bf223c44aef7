"""No ghost work: whatever ends a run early, its engine is idle again within two seconds."""

import pytest
from google.protobuf.duration_pb2 import Duration

from behaviour.backend import Answer, Backend, asked, chat
from behaviour.load import becomes_busy, becomes_idle
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import Limits
from tokenwire.v1.run_service_pb2 import CancelRunRequest
from tokenwire.v1.sampling_pb2 import Sampling, Stopping


def endless(backend: Backend, form: str) -> GenerateRequest | ChatRequest:
    stopping = Stopping(max_tokens=min(1500, backend.window - 100))
    if not isinstance(backend.engine, ScriptedEngine):
        stopping.ignore_eos = True
    if form == "chat":
        return chat("Tell a long story.", stopping=stopping)
    sampling = Sampling(temperature=1, n=2 if form == "two choices" else 1)
    return asked("Once upon a time", stopping=stopping, sampling=sampling)


@pytest.fixture
def slow(backend: Backend) -> Backend:
    if isinstance(backend.engine, ScriptedEngine):
        backend.engine._script = type(backend.engine)(seconds_per_token=0.05)._script
    return backend


@pytest.mark.asyncio
@pytest.mark.parametrize("form", ["prompt", "chat", "two choices"])
async def test_a_client_that_leaves_ends_the_work(slow: Backend, form: str) -> None:
    request = endless(slow, form)
    stub = slow.service.chat.StreamChat if form == "chat" else slow.service.generate.StreamGenerate
    with slow.having(*["sampling.n"] * (form == "two choices")):
        call = stub(request)  # type: ignore[arg-type]
        async for event in call:
            if event.HasField("delta"):
                break
        await becomes_busy(slow)
        call.cancel()
        await becomes_idle(slow)


@pytest.mark.asyncio
async def test_a_unary_client_that_leaves_ends_the_work(slow: Backend) -> None:
    call = slow.service.generate.Generate(endless(slow, "prompt"))  # type: ignore[arg-type]
    await becomes_busy(slow)
    call.cancel()
    await becomes_idle(slow)


@pytest.mark.asyncio
async def test_a_cancelled_run_ends_the_work_and_keeps_its_text(slow: Backend) -> None:
    request = endless(slow, "prompt")
    request.run.request_id = "cancel-me"
    events: list[Event] = []
    async for event in slow.service.generate.StreamGenerate(request):  # type: ignore[arg-type]
        events.append(event)
        if event.HasField("delta") and sum(one.HasField("delta") for one in events) == 3:
            await becomes_busy(slow)
            run = await slow.service.runs.CancelRun(CancelRunRequest(request_id="cancel-me"))
            await becomes_idle(slow)
            assert run.usage.output_tokens >= 3
    answer = Answer(events)
    assert answer.reason() == "CANCELLED"
    assert answer.events[-1].end.channels[0].bytes == len(answer.text().encode())


@pytest.mark.asyncio
async def test_a_run_past_its_time_ends_the_work(slow: Backend) -> None:
    request = endless(slow, "prompt")
    request.limits.CopyFrom(Limits(max_duration=Duration(nanos=600_000_000)))
    answer = await slow.stream(request)
    assert answer.reason() == "TIME_LIMIT"
    await becomes_idle(slow)
