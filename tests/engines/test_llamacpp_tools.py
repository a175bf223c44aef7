"""Tool calls of the embedded engine, with its real child and its real model."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engines.embedded import Result, busy_slots, chat, job, slots_are_freed, started
from harness.telling import told_by
from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import CallHead, Piece
from tokenwire.domain.request import (
    Constraint,
    Message,
    Role,
    Sampling,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
)
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine

pytestmark = [pytest.mark.llamacpp, pytest.mark.timeout(180)]

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = Tool(name="weather", description="Tells the weather", parameters_schema=json.dumps(CITY))
CLOCK = Tool(name="clock", description="Tells the time")
GREEDY = Sampling(temperature=0.0)
ASKED = "What is the weather in Paris for 3 days?"
CALLED = (
    "Weather in Rome?",
    Message(role=Role.ASSISTANT, content="", tool_calls=(ToolCall(id="1", name="look", arguments='{"city": "Rome"}'),)),
    "Weather in Oslo?",
)
LOOK = Tool(
    name="look",
    parameters_schema='{"type":"object","properties":{"city":{"type":"string","maxLength":12}},"required":["city"],'
    '"additionalProperties":false}',
)


@pytest_asyncio.fixture
async def roomy(cache: Path, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """An engine with room for tools in the system message."""
    async with started(cache, tmp_path, context_per_slot=768, slots=2) as engine:
        yield engine


def fits(arguments: str) -> bool:
    told = json.loads(arguments)
    return told.keys() == {"city", "days"} and len(told["city"]) <= 12 and 1 <= told["days"] <= 9


def all_tokens(result: Result) -> int:
    return sum(piece.token_count or 0 for choice in range(2) for piece in result.pieces(choice))


@pytest.mark.asyncio
async def test_required_calls_follow_the_schemas_of_their_tools(roomy: LlamaCppEngine) -> None:
    result = await chat(
        roomy,
        ASKED,
        max_tokens=70,
        tools=(WEATHER, CLOCK),
        tool_choice=ToolMode.REQUIRED,
        parallel_tool_calls=False,
        sampling=Sampling(n=2, seed=1, temperature=1.5),
    )
    for choice in range(2):
        ((name, arguments),) = result.calls(choice)
        assert fits(arguments) if name == "weather" else json.loads(arguments) == {}
        assert result.text(choice) == ""
        assert result.done(choice).finish_reason is FinishReason.TOOL_CALLS
    heads = [item.id for item in result.generated if isinstance(item, CallHead)]
    assert len(set(heads)) == 2
    assert all_tokens(result) == result.totals.output_tokens


@pytest.mark.asyncio
async def test_a_named_tool_is_called_and_its_arguments_come_in_pieces(roomy: LlamaCppEngine) -> None:
    result = await chat(
        roomy,
        "Hello!",
        max_tokens=70,
        tools=(CLOCK, WEATHER),
        tool_choice="weather",
        parallel_tool_calls=False,
        sampling=GREEDY,
    )
    ((name, arguments),) = result.calls()
    assert name == "weather"
    assert fits(arguments)
    assert sum(bool(piece.text) for piece in result.pieces()) > 5


@pytest.mark.asyncio
async def test_as_the_model_likes_it_calls_or_answers(roomy: LlamaCppEngine) -> None:
    called = await chat(roomy, *CALLED, tools=(LOOK,), sampling=GREEDY)
    free = await chat(roomy, "Tell a story.", max_tokens=12, tools=(LOOK,), sampling=GREEDY)
    untold = await chat(roomy, "Hi", max_tokens=4, tools=(LOOK,), tool_choice=ToolMode.NONE)
    assert called.calls() == [("look", '{"city": "Oslo"}')]
    assert called.done().finish_reason is FinishReason.TOOL_CALLS
    assert free.calls() == []
    assert len(free.text().split()) > 5
    assert free.done().finish_reason is FinishReason.LENGTH
    assert untold.prompt.prompt_tokens < free.prompt.prompt_tokens - 80


@pytest.mark.asyncio
async def test_several_calls_are_made_where_they_are_allowed(roomy: LlamaCppEngine) -> None:
    result = await chat(roomy, ASKED, max_tokens=90, tools=(CLOCK,), tool_choice="clock", sampling=GREEDY)
    assert len(result.calls()) > 1
    assert {arguments for _, arguments in result.calls()} <= {"{}", ""}
    assert result.text() == ""


@pytest.mark.asyncio
async def test_arguments_of_a_tool_that_is_not_strict_are_any_object(roomy: LlamaCppEngine) -> None:
    loose = Tool(name="loose", parameters_schema='{"type": "object", "not": {}}', strict=False)
    result = await chat(roomy, "Hi", max_tokens=30, tools=(loose,), tool_choice="loose", sampling=GREEDY)
    assert result.calls()[0][1].startswith("{")


@pytest.mark.asyncio
async def test_what_cannot_be_held_to_is_refused_by_name_before_there_is_a_run(roomy: LlamaCppEngine) -> None:
    bad = Tool(name="bad", parameters_schema='{"type": "object", "properties": {"x": {"not": {"type": "string"}}}}')
    with pytest.raises(InvalidRequestError) as caught:
        await job(roomy, Submission(messages=(Message(role=Role.USER, content="Hi"),), tools=(WEATHER, bad)))
    assert caught.value.violations[0].field == "tools.parameters_schema"


@pytest.mark.asyncio
async def test_beside_tools_an_answer_keeps_its_constraint(roomy: LlamaCppEngine) -> None:
    result = await chat(roomy, "Hi", tools=(CLOCK,), constraint=Constraint(choice=("red", "green")), sampling=GREEDY)
    assert result.text() in ("red", "green") or result.calls()
    with pytest.raises(InvalidRequestError) as caught:
        await chat(roomy, "Hi", tools=(CLOCK,), constraint=Constraint(regex="(?=a)b"))
    assert caught.value.violations[0].field == "constraint.regex"


@pytest.mark.asyncio
async def test_cancelling_a_run_with_tools_frees_its_slot(roomy: LlamaCppEngine) -> None:
    asked = Submission(
        messages=(Message(role=Role.USER, content=ASKED),),
        tools=(Tool(name="any", strict=False),),
        tool_choice=ToolMode.REQUIRED,
        stopping=Stopping(max_tokens=400),
    )
    async with aclosing(told_by(roomy, await job(roomy, asked))) as batches:
        async for batch in batches:
            if any(isinstance(item, Piece) for item in batch):
                break
        assert await busy_slots(roomy) == 1
    await slots_are_freed(roomy)
