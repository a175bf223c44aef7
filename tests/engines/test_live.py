"""Real vLLM and SGLang servers behind the service: `make test-engines` with VLLM_BASE_URL or SGLANG_BASE_URL."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.service import Service, service
from tokenwire.app import SYSTEM_CLOCK, make_engines
from tokenwire.engines.status import EngineState
from tokenwire.settings import Settings
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.finish_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP_SEQUENCE
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

pytestmark = pytest.mark.live
VARIABLES = ("VLLM_BASE_URL", "SGLANG_BASE_URL")


@pytest_asyncio.fixture(params=VARIABLES)
async def live(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    variable: str = request.param
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set")
    engines = make_engines(Settings.load({}, {variable: url}, Path("/")), SYSTEM_CLOCK)
    async with service(*engines) as running:
        await engines[0].check()
        assert engines[0].status.state is EngineState.READY
        yield running


def text(events: list[Event], choice: int = 0) -> str:
    return "".join(event.delta.text for event in events if event.delta.choice == choice)


@pytest.mark.asyncio
async def test_a_generate_streams(live: Service) -> None:
    asked = GenerateRequest(
        prompt="The capital of France is", sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=12)
    )
    events = [event async for event in live.generate.StreamGenerate(asked)]
    assert text(events).startswith(" Paris")
    assert len([event for event in events if event.HasField("delta")]) > 2
    end = events[-1].end
    assert end.choices[0].finish_reason == FINISH_REASON_LENGTH
    assert (end.usage.prompt_tokens, end.usage.output_tokens) == (5, 12)


@pytest.mark.asyncio
async def test_a_chat_streams(live: Service) -> None:
    asked = ChatRequest(
        messages=[Message(content="Say hello.")], sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=12)
    )
    events = [event async for event in live.chat.StreamChat(asked)]
    assert text(events)
    assert events[-1].end.usage.prompt_tokens > 5


@pytest.mark.asyncio
async def test_two_choices_come_apart(live: Service) -> None:
    asked = GenerateRequest(prompt="Once upon", sampling=Sampling(n=2, seed=1), stopping=Stopping(max_tokens=8))
    events = [event async for event in live.generate.StreamGenerate(asked)]
    assert text(events, 0)
    assert text(events, 1)
    assert [one.choice for one in events[-1].end.choices] == [0, 1]


@pytest.mark.asyncio
async def test_a_stop_string_is_told(live: Service) -> None:
    asked = GenerateRequest(
        prompt="1, 2, 3, 4,", sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=30, stop=["7"])
    )
    result = await live.generate.Generate(asked)
    assert result.choices[0].finish_reason == FINISH_REASON_STOP_SEQUENCE
    assert result.choices[0].matched_stop.text == "7"
    assert "7" not in result.choices[0].text
