"""Messages and tools as OpenAI's objects."""

from typing import Any

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, Submission, Tool, ToolMode
from tokenwire.engines.schemas import json_object

_MODES = {ToolMode.AUTO: "auto", ToolMode.NONE: "none", ToolMode.REQUIRED: "required"}


def message_object(message: Message) -> dict[str, Any]:
    """Returns a message."""
    body: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.name:
        body["name"] = message.name
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return body


def tool_fields(submission: Submission) -> dict[str, Any]:
    """Returns the fields of a chat's body that are about tools; none if there are no tools.

    Tools are strict unless the request says otherwise, on every server: some hold the arguments to the schema only
    then, and OpenAI itself refuses schemas for which it cannot, which says more than an answer that breaks them.
    """
    if not submission.tools:
        return {}
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in submission.tools]}
    choice = submission.tool_choice
    if isinstance(choice, ToolMode):
        fields["tool_choice"] = _MODES[choice]
    elif choice is not None:
        fields["tool_choice"] = {"type": "function", "function": {"name": choice}}
    if submission.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = submission.parallel_tool_calls
    return fields


def vet_tools(submission: Submission) -> None:
    """Refuses a schema that is none, and a choice of tools that are not there."""
    for tool in submission.tools:
        if tool.parameters_schema:
            json_object(tool.parameters_schema, "tools.parameters_schema")
    choice = submission.tool_choice
    if isinstance(choice, ToolMode):
        if choice is ToolMode.REQUIRED and not submission.tools:
            raise InvalidRequestError("tool_choice.mode", "requires a tool, but there are none")
    elif choice is not None and choice not in {tool.name for tool in submission.tools}:
        raise InvalidRequestError("tool_choice.name", "is none of the request's tools")


def _tool(tool: Tool) -> dict[str, Any]:
    schema = tool.parameters_schema
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": json_object(schema, "tools.parameters_schema")
        if schema
        else {"type": "object", "properties": {}, "additionalProperties": False},
    }
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not False:
        function["strict"] = True
    return {"type": "function", "function": function}
