"""A chat's tools: which of them the model may call, and how they are told to it."""

import json
from collections.abc import Sequence
from typing import Any

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, Role, Submission, Tool, ToolMode
from tokenwire.engines.llamacpp.calls import CLOSE, OPEN
from tokenwire.engines.schemas import json_object

_INTRODUCTION = "You can call tools. Each line between these tags is the JSON signature of one tool:"
_INSTRUCTION = (
    "To call a tool, write its name and its arguments as one JSON object between tool_call tags, and nothing after it:"
)
_EXAMPLE = '{"name": "<the tool\'s name>", "arguments": {<its arguments>}}'
_RESULT_OPEN, _RESULT_CLOSE = "<tool_response>", "</tool_response>"
_SEVERAL = "Write one pair of tags for each call."


def callable_tools(submission: Submission) -> tuple[Tool, ...]:
    """Returns the tools that the model may call in this answer; none: the chat has none, or they are not to be called.

    Raises InvalidRequestError, naming the field, for a choice that the tools cannot meet.
    """
    choice, tools = submission.tool_choice, submission.tools
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequestError("tools.name", "must be unique")
    if isinstance(choice, str):
        chosen = tuple(tool for tool in tools if tool.name == choice)
        if not chosen:
            raise InvalidRequestError("tool_choice.name", "is not one of the tools")
        return chosen
    if choice is ToolMode.REQUIRED and not tools:
        raise InvalidRequestError("tool_choice.mode", "needs tools")
    return () if choice is ToolMode.NONE else tools


def must_call(submission: Submission) -> bool:
    """Returns whether the answer is a call in any case."""
    return submission.tool_choice is ToolMode.REQUIRED or isinstance(submission.tool_choice, str)


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """Returns the JSON Schema that the arguments of a call are held to: always that of an object.

    Without a schema of its own a tool has no arguments; where it is not strict, any.
    """
    schema = _told_schema(tool)
    if tool.strict is False:
        return {"type": "object"}
    return schema


def signature(tool: Tool) -> dict[str, Any]:
    """Returns a tool as OpenAI's API and chat templates have it."""
    function = {"name": tool.name, "description": tool.description, "parameters": _told_schema(tool)}
    return {"type": "function", "function": function}


def told_in_text(messages: Sequence[Message], tools: Sequence[Tool], *, several: bool) -> list[Message]:
    """Returns messages that tell the tools, earlier calls and their results as text.

    For a chat template that knows none of them. The tools come at the end of the system message, a call at the end of
    its assistant's message, and results as the user's, with the name of the tool that was called.
    """
    told: list[Message] = []
    called: dict[str, str] = {}
    for message in messages:
        called.update((call.id, call.name) for call in message.tool_calls)
        if message.role is Role.TOOL:
            _add(told, _result(message.content, called.get(message.tool_call_id, message.name)))
        elif message.tool_calls:
            calls = [_call(one.name, one.arguments) for one in message.tool_calls]
            content = "\n".join([message.content, *calls] if message.content else calls)
            told.append(Message(role=message.role, content=content, name=message.name))
        else:
            told.append(message)
    if not tools:
        return told
    lines = "\n".join(json.dumps(signature(tool), ensure_ascii=False) for tool in tools)
    usage = f"{_INSTRUCTION}\n{OPEN}\n{_EXAMPLE}\n{CLOSE}"
    text = f"{_INTRODUCTION}\n<tools>\n{lines}\n</tools>\n{usage}" + (f"\n{_SEVERAL}" if several else "")
    if told and told[0].role is Role.SYSTEM:
        return [Message(role=Role.SYSTEM, content=f"{told[0].content}\n\n{text}", name=told[0].name), *told[1:]]
    return [Message(role=Role.SYSTEM, content=text), *told]


def _add(told: list[Message], result: str) -> None:
    """Adds a tool's result; results in a row are one message, since many templates want the roles to alternate."""
    if told and told[-1].role is Role.USER and told[-1].content.endswith(_RESULT_CLOSE):
        told[-1] = Message(role=Role.USER, content=f"{told[-1].content}\n{result}")
    else:
        told.append(Message(role=Role.USER, content=result))


def _result(content: str, name: str) -> str:
    text = json.dumps({"name": name, "content": content}, ensure_ascii=False) if name else content
    return f"{_RESULT_OPEN}\n{text}\n{_RESULT_CLOSE}"


def _call(name: str, arguments: str) -> str:
    return f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}\n{CLOSE}'


def _told_schema(tool: Tool) -> dict[str, Any]:
    if not tool.parameters_schema:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    schema = json_object(tool.parameters_schema, "tools.parameters_schema")
    if schema.get("type", "object") != "object":
        raise InvalidRequestError("tools.parameters_schema", "is not the JSON Schema of an object")
    return schema if "type" in schema else {"type": "object", **schema}
