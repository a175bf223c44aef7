"""Tools: calls by themselves, their arguments as they are written, and turns that go on from them."""

import json

import pytest

from behaviour.backend import Answer, Backend, chat
from tokenwire.domain.cursor import ChannelKind
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.message_pb2 import (
    REASONING_EFFORT_NONE,
    ROLE_ASSISTANT,
    ROLE_TOOL,
    ROLE_USER,
    TOOL_MODE_AUTO,
    TOOL_MODE_NONE,
    TOOL_MODE_REQUIRED,
    Message,
    Reasoning,
    Tool,
    ToolChoice,
)
from tokenwire.v1.run_pb2 import ToolCall
from tokenwire.v1.sampling_pb2 import Stopping

WEATHER = Tool(
    name="get_weather",
    description="Tells the weather in a city.",
    parameters_schema=json.dumps(
        {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        }
    ),
)
TIME = Tool(name="get_time", description="Tells the time.")
QUESTION = "What is the weather in Paris?"
LONG = Stopping(max_tokens=100)


def calling(choice: ToolChoice, *tools: Tool, **fields: object) -> ChatRequest:
    return chat(QUESTION, tools=tools or (WEATHER, TIME), tool_choice=choice, stopping=LONG, **fields)


def calls(answer: Answer) -> list[ToolCall]:
    found: dict[int, ToolCall] = {}
    for event in answer.events:
        if event.HasField("tool_call_delta"):
            delta = event.tool_call_delta
            call = found.setdefault(delta.index, ToolCall())
            call.id, call.name = call.id or delta.id, call.name or delta.name
            call.arguments += delta.arguments
    return [found[index] for index in sorted(found)]


def ended_with_calls(backend: Backend, answer: Answer) -> bool:
    # SGLang lets the small model pad its JSON with white space, which it does until its limit.
    return answer.reason() == "TOOL_CALLS" or (backend.name == "sglang" and answer.reason() == "LENGTH")


@pytest.mark.asyncio
async def test_a_tool_must_be_called_and_its_arguments_fit(backend: Backend) -> None:
    with backend.having("tools.name", "tool_choice.mode=REQUIRED"):
        answer = await backend.stream(calling(ToolChoice(mode=TOOL_MODE_REQUIRED), WEATHER, parallel_tool_calls=False))
        first = calls(answer)[0]
        assert first.name == "get_weather"
        assert first.id
        arguments = json.loads(first.arguments)
        assert sorted(arguments) == ["city", "unit"]
        assert arguments["unit"] in "CF"
        assert ended_with_calls(backend, answer)
        assert "get_weather" not in answer.text()
        assert backend.written(answer, ChannelKind.TOOL_CALL) > 2


@pytest.mark.asyncio
async def test_the_named_tool_is_called(backend: Backend) -> None:
    with backend.having("tools.name", "tool_choice.name"):
        answer = await backend.stream(calling(ToolChoice(name="get_weather"), parallel_tool_calls=False))
        (only,) = calls(answer)
        assert only.name == "get_weather"
        assert sorted(json.loads(only.arguments)) == ["city", "unit"]
        assert ended_with_calls(backend, answer)


@pytest.mark.asyncio
async def test_a_unary_call_has_the_whole_call(backend: Backend) -> None:
    with backend.having("tools.name", "tool_choice.name"):
        result = await backend.unary(calling(ToolChoice(name="get_weather"), parallel_tool_calls=False))
        (call,) = result.choices[0].tool_calls
        assert (call.name, sorted(json.loads(call.arguments))) == ("get_weather", ["city", "unit"])


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", [TOOL_MODE_AUTO, TOOL_MODE_NONE])
async def test_the_model_is_free_to_answer_or_bound_to(backend: Backend, mode: int) -> None:
    name = "AUTO" if mode == TOOL_MODE_AUTO else "NONE"
    with backend.having("tools.name", f"tool_choice.mode={name}"):
        answer = await backend.stream(calling(ToolChoice(mode=mode)))  # type: ignore[arg-type]
        made = calls(answer)
        assert made or answer.text()
        assert not (made and mode == TOOL_MODE_NONE)
        assert all(isinstance(json.loads(call.arguments or "{}"), dict) for call in made)
        assert (answer.reason() == "TOOL_CALLS") == bool(made)


@pytest.mark.asyncio
async def test_a_tool_s_result_is_part_of_the_next_turn(backend: Backend) -> None:
    call = ToolCall(id="call-1", name="get_weather", arguments='{"city":"Paris","unit":"C"}')
    messages = [
        Message(role=ROLE_USER, content=QUESTION),
        Message(role=ROLE_ASSISTANT, tool_calls=[call]),
        Message(role=ROLE_TOOL, tool_call_id="call-1", content='{"sky": "purple rain", "degrees": 21}'),
    ]
    with backend.having("messages.role=TOOL", "messages.tool_calls", "messages.tool_call_id", "tools.name"):
        with_result = await backend.stream(chat(messages=messages, tools=[WEATHER], stopping=LONG))
        assert with_result.text() or calls(with_result)
        shorter = await backend.stream(chat(QUESTION, tools=[WEATHER]))
        assert with_result.usage.prompt_tokens > shorter.usage.prompt_tokens


@pytest.mark.asyncio
async def test_no_reasoning_leaves_the_answer_alone(backend: Backend) -> None:
    with backend.having("reasoning.effort=NONE"):
        answer = await backend.stream(chat("Say hi.", reasoning=Reasoning(effort=REASONING_EFFORT_NONE)))
        assert answer.text()
        assert not any(event.HasField("reasoning_delta") for event in answer.events)
