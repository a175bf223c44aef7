"""Messages and tools as Ollama takes them."""

import json
from typing import Any

import msgspec
import pytest

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, Role, Tool, ToolCall
from tokenwire.engines.ollama.messages import chat_messages, chat_tools

PLAIN = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def assistant(*calls: ToolCall) -> Message:
    return Message(role=Role.ASSISTANT, content="", tool_calls=calls)


def result(call_id: str) -> Message:
    return Message(role=Role.TOOL, content="4", tool_call_id=call_id)


def test_a_result_names_the_tool_of_the_call_that_it_answers() -> None:
    calls = (ToolCall(id="a", name="f", arguments='{"x": 1}'), ToolCall(id="b", name="g", arguments=""))
    assert plain(chat_messages((assistant(*calls), result("b"), result("a")))) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
                {"id": "b", "function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "4", "tool_name": "g", "tool_call_id": "b"},
        {"role": "tool", "content": "4", "tool_name": "f", "tool_call_id": "a"},
    ]


def test_the_latest_call_of_an_id_counts() -> None:
    again = [assistant(ToolCall(id="a", name=name, arguments="{}")) for name in ("f", "g")]
    assert chat_messages((*again, result("a")))[-1]["tool_name"] == "g"


@pytest.mark.parametrize("earlier", [(), (assistant(ToolCall(id="b", name="f", arguments="{}")),)])
def test_a_result_of_no_earlier_call_is_refused(earlier: tuple[Message, ...]) -> None:
    later = assistant(ToolCall(id="a", name="f", arguments="{}"))
    with pytest.raises(InvalidRequestError, match=r"^messages\.tool_call_id: "):
        chat_messages((*earlier, result("a"), later))


@pytest.mark.parametrize("arguments", ["{", "[]", '"text"', "null"])
def test_arguments_that_are_no_json_object_are_refused(arguments: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages\.tool_calls\.arguments: "):
        chat_messages((assistant(ToolCall(id="a", name="f", arguments=arguments)),))


def test_arguments_are_sent_digit_for_digit() -> None:
    text = '{"x":12345678901234567890123,"y":1.10}'
    (message,) = chat_messages((assistant(ToolCall(id="a", name="f", arguments=text)),))
    assert text.encode() in msgspec.json.encode(message)


def test_a_tool_is_a_function_with_parameters() -> None:
    tools = (Tool(name="f"), Tool(name="g", description="d", parameters_schema=json.dumps(PLAIN)))
    assert chat_tools(tools) == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}},
        {"type": "function", "function": {"name": "g", "description": "d", "parameters": PLAIN}},
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": False},
        {"properties": {"city": {"type": "string", "minLength": 1}}},
        {"properties": {"place": {"type": "object", "properties": {"city": {"pattern": "a"}}}}},
        {"properties": {"city": {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 1}]}}},
    ],
)
@pytest.mark.parametrize("description", ["", "Tells the weather."])
def test_keywords_that_ollama_would_drop_are_told_in_the_description(more: dict[str, Any], description: str) -> None:
    schema = json.dumps(PLAIN | more)
    ((tool),) = chat_tools((Tool(name="f", description=description, parameters_schema=schema),))
    assert tool["function"]["description"].startswith(description)
    assert tool["function"]["description"].endswith(schema)
    assert tool["function"]["parameters"] == PLAIN | more


@pytest.mark.parametrize("schema", ["{", "[]", "true"])
def test_a_schema_that_is_no_json_object_is_refused(schema: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^tools\.parameters_schema: "):
        chat_tools((Tool(name="f", parameters_schema=schema),))
