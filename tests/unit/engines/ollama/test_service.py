"""The stand-in of an Ollama behind the whole service."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from harness.ollama_stand_in import OllamaStandIn, Part, StandInModel, ollama_stand_in
from harness.reading import next_event
from harness.refusals import refused
from harness.service import Service, service
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.finish_pb2 import FINISH_REASON_STOP, FINISH_REASON_TOOL_CALLS
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import (
    REASONING_EFFORT_LOW,
    ROLE_ASSISTANT,
    ROLE_TOOL,
    Message,
    Reasoning,
    Tool,
)
from tokenwire.v1.output_pb2 import Logprobs, Output
from tokenwire.v1.run_pb2 import ToolCall
from tokenwire.v1.sampling_pb2 import Constraint, JsonObject, LogitBias, Sampling, Stopping
from unit.engines.ollama.running import engine_at

WEATHER = Tool(name="weather", parameters_schema='{"type": "object", "properties": {"city": {"type": "string"}}}')
LOOKING = (Part(thinking="Let me look."), Part(call=("weather", {"city": "Köln"})))


@asynccontextmanager
async def serving(**settings: Any) -> AsyncGenerator[tuple[Service, OllamaStandIn], None]:
    async with ollama_stand_in(**settings) as stand_in, service(engine_at(stand_in.url)) as running:
        yield running, stand_in


@pytest.mark.asyncio
async def test_a_stream_tells_text_and_counts() -> None:
    async with serving() as (running, _):
        events = [event async for event in running.generate.StreamGenerate(GenerateRequest(prompt="hi you"))]
    assert "".join(event.delta.text for event in events) == "Hello there, friend."
    end = events[-1].end
    assert end.choices[0].finish_reason == FINISH_REASON_STOP
    assert (end.usage.prompt_tokens, end.usage.cached_tokens, end.usage.output_tokens) == (2, 0, 3)
    # It does not say how many tokens a piece is.
    assert not any(event.delta.token_count for event in events)


@pytest.mark.asyncio
async def test_a_turn_with_tools_goes_round() -> None:
    async with serving(answer=LOOKING) as (running, stand_in):
        first = await running.chat.Chat(ChatRequest(messages=[Message(content="Weather?")], tools=[WEATHER]))
        (choice,) = first.choices
        assert (choice.reasoning, choice.finish_reason) == ("Let me look.", FINISH_REASON_TOOL_CALLS)
        (call,) = choice.tool_calls
        assert (call.name, call.arguments) == ("weather", '{"city":"Köln"}')
        stand_in.answer = (Part(text="It rains."),)
        messages = [
            Message(content="Weather?"),
            Message(role=ROLE_ASSISTANT, tool_calls=[ToolCall(id=call.id, name=call.name, arguments=call.arguments)]),
            Message(role=ROLE_TOOL, content="rain", tool_call_id=call.id),
        ]
        second = await running.chat.Chat(ChatRequest(messages=messages, tools=[WEATHER]))
        assert second.choices[0].text == "It rains."
        assert stand_in.asked("/api/chat")[-1]["messages"][-1]["tool_name"] == "weather"


@pytest.mark.asyncio
async def test_options_reach_it() -> None:
    request = GenerateRequest(
        model="tiny",
        prompt="hi",
        sampling=Sampling(temperature=0.0, seed=7),
        stopping=Stopping(max_tokens=9, stop=["frie"]),
        output=Output(logprobs=Logprobs(top_n=1), echo=True),
    )
    async with serving() as (running, stand_in):
        result = await running.generate.Generate(request)
        assert result.choices[0].text == "hiHello there, "
        assert [one.token for one in result.choices[0].logprobs] == ["Hello", " there,", " "]
        request.constraint.json_object.SetInParent()
        assert (await running.generate.Generate(request)).choices[0].text == 'hi{"ok": true}'
        assert stand_in.asked("/api/generate")[0]["options"] == {
            "temperature": 0.0,
            "seed": 7,
            "num_predict": 9,
            "stop": ["frie"],
        }


@pytest.mark.asyncio
async def test_what_it_cannot_do_is_refused_by_name_before_it_is_asked() -> None:
    hi = [Message(content="hi")]
    requests = {
        "sampling.logit_bias": ChatRequest(
            messages=hi, sampling=Sampling(logit_bias=[LogitBias(token_id=1, bias=1.0)])
        ),
        "constraint.regex": ChatRequest(messages=hi, constraint=Constraint(regex="a")),
        "constraint": ChatRequest(messages=hi, tools=[WEATHER], constraint=Constraint(json_object=JsonObject())),
        "messages.tool_call_id": ChatRequest(messages=[Message(role=ROLE_TOOL, content="4", tool_call_id="x")]),
        "output.logprobs.top_n": ChatRequest(messages=hi, output=Output(logprobs=Logprobs(top_n=21))),
        "output.echo": ChatRequest(messages=hi, output=Output(echo=True)),
        "reasoning.effort": ChatRequest(messages=hi, reasoning=Reasoning(effort=REASONING_EFFORT_LOW)),
    }
    models = {"plain:latest": StandInModel(digest="d1", capabilities=("completion", "tools"))}
    async with serving(models=models) as (running, stand_in):
        for field, request in requests.items():
            refusal = await refused(running.chat.Chat(request))
            assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [violation for violation, _ in refusal.violations] == [field]
        assert stand_in.asked("/api/chat") == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((Part(error="model runner has unexpectedly stopped"),), grpc.StatusCode.UNAVAILABLE),
        ((Part(text="a b"), Part(error="model runner has unexpectedly stopped")), grpc.StatusCode.DATA_LOSS),
        ((Part(text="a b"), Part(cut=True)), grpc.StatusCode.DATA_LOSS),
    ],
)
async def test_a_failure_is_the_status(parts: tuple[Part, ...], expected: grpc.StatusCode) -> None:
    async with serving(answer=parts) as (running, _):
        assert (await refused(running.generate.Generate(GenerateRequest(prompt="hi")))).code is expected


@pytest.mark.asyncio
async def test_a_prompt_that_does_not_fit_is_an_invalid_argument() -> None:
    async with serving(default_num_ctx=16) as (running, _):
        refusal = await refused(running.generate.Generate(GenerateRequest(prompt="word " * 20)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED")


@pytest.mark.asyncio
async def test_an_unknown_model_is_not_found() -> None:
    async with serving() as (running, _):
        refusal = await refused(running.generate.Generate(GenerateRequest(model="nobody", prompt="hi")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


@pytest.mark.asyncio
async def test_a_client_that_leaves_closes_the_connection_and_has_cost_what_was_written() -> None:
    answer = (Part(text="one two three"), Part(pause=True))
    async with serving(answer=answer) as (running, stand_in):
        call = running.generate.StreamGenerate(GenerateRequest(prompt="hi"))
        text = ""
        while text != "one two three":
            text += (await next_event(call)).delta.text
        call.cancel()
        await stand_in.stopped.wait()
        (run,) = running.app.runs.list("local")
    assert run.end is not None
    assert run.end.usage.output_tokens == 3
