"""A chat's messages and tools as Ollama takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, Tool, ToolCall
from tokenwire.engines.schemas import json_object

# What Ollama reads of a parameters schema, of the whole and of each property; it drops other keywords without a word.
_OF_PARAMETERS = frozenset({"type", "$defs", "items", "required", "properties"})
_OF_PROPERTY = frozenset({"anyOf", "type", "items", "description", "enum", "properties", "required"})


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Returns the messages of a chat. A tool's result names its tool by the call that it answers.

    Raises InvalidRequestError for a result of no earlier call, and for arguments that are not a JSON object.
    """
    called: dict[str, str] = {}
    told = []
    for message in messages:
        body: dict[str, Any] = {"role": message.role.value, "content": message.content}
        if message.tool_calls:
            body["tool_calls"] = [_call(call) for call in message.tool_calls]
            called.update((call.id, call.name) for call in message.tool_calls if call.id)
        if message.tool_call_id:
            name = called.get(message.tool_call_id)
            if name is None:
                raise InvalidRequestError("messages.tool_call_id", "is the id of no earlier tool call")
            # Chat templates know the one or the other.
            body |= {"tool_name": name, "tool_call_id": message.tool_call_id}
        told.append(body)
    return told


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Returns the tools of a chat. Raises InvalidRequestError for a schema that is not a JSON object."""
    return [{"type": "function", "function": _function(tool)} for tool in tools]


def json_text(text: str, field: str) -> msgspec.Raw:
    """Returns a text that is a JSON object as it is. Raises InvalidRequestError, naming the field, if it is none."""
    json_object(text, field)
    return msgspec.Raw(text.strip().encode())


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json_text(call.arguments or "{}", "messages.tool_calls.arguments")
    body: dict[str, Any] = {"function": {"name": call.name, "arguments": arguments}}
    return body | {"id": call.id} if call.id else body


def _function(tool: Tool) -> dict[str, Any]:
    schema = json_object(tool.parameters_schema or "{}", "tools.parameters_schema")
    description = tool.description
    if not _is_read(schema):
        # The model shall hear of it all the same.
        whole = f"The parameters as JSON Schema: {tool.parameters_schema.strip()}"
        description = f"{description}\n\n{whole}" if description else whole
    parameters = {"type": "object", "properties": {}} | schema
    return {"name": tool.name, "parameters": parameters} | ({"description": description} if description else {})


def _is_read(schema: Mapping[str, Any], known: frozenset[str] = _OF_PARAMETERS) -> bool:
    """Whether Ollama hands all of a schema on."""
    properties, alternatives = schema.get("properties"), schema.get("anyOf")
    inner = [
        *(properties.values() if isinstance(properties, dict) else ()),
        *(alternatives if isinstance(alternatives, list) else ()),
    ]
    return schema.keys() <= known and all(_is_read(one, _OF_PROPERTY) for one in inner if isinstance(one, dict))
