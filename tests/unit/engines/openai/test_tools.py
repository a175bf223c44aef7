"""Tools as OpenAI's objects."""

from typing import Any

import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, Role, Submission, Tool, ToolMode
from tokenwire.engines.openai.tools import tool_fields, vet_tools

CHAT = (Message(role=Role.USER, content="hi"),)
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def _chat(*tools: Tool, **fields: Any) -> Submission:
    return Submission(messages=CHAT, tools=tools, **fields)


@pytest.mark.parametrize(
    ("tool", "function"),
    [
        (Tool(name="f"), {"name": "f", "parameters": NO_PARAMETERS, "strict": True}),
        (Tool(name="f", strict=True), {"name": "f", "parameters": NO_PARAMETERS, "strict": True}),
        (Tool(name="f", strict=False), {"name": "f", "parameters": NO_PARAMETERS}),
        (
            Tool(name="f", description="does", parameters_schema='{"type":"object","x":[1]}'),
            {"name": "f", "description": "does", "parameters": {"type": "object", "x": [1]}, "strict": True},
        ),
    ],
)
def test_a_tool_is_strict_unless_it_says_otherwise(tool: Tool, function: dict[str, Any]) -> None:
    assert tool_fields(_chat(tool)) == {"tools": [{"type": "function", "function": function}]}


def test_without_tools_nothing_is_said_of_them() -> None:
    # Servers refuse it, and it asks for nothing.
    for mode in (ToolMode.AUTO, ToolMode.NONE):
        submission = _chat(tool_choice=mode, parallel_tool_calls=False)
        vet_tools(submission)
        assert tool_fields(submission) == {}


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        (_chat(tool_choice=ToolMode.REQUIRED), "tool_choice.mode"),
        (_chat(tool_choice="f"), "tool_choice.name"),
        (_chat(Tool(name="g"), tool_choice="f"), "tool_choice.name"),
        (_chat(Tool(name="f"), Tool(name="g", parameters_schema="{")), "tools.parameters_schema"),
        (_chat(Tool(name="f", parameters_schema='"text"')), "tools.parameters_schema"),
    ],
)
def test_what_cannot_be_is_refused_by_name(submission: Submission, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        vet_tools(submission)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_choice_that_can_be_is_taken() -> None:
    vet_tools(_chat(Tool(name="f"), tool_choice="f"))
    vet_tools(_chat(Tool(name="f", parameters_schema='{"type":"object"}'), tool_choice=ToolMode.REQUIRED))
