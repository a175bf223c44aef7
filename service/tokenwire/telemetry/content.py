"""Prompts and answers as attributes, for those who ask for them: JSON as the conventions have it, within a bound."""

import json
from collections.abc import Iterable
from typing import Any

from opentelemetry.util.types import AttributeValue

from tokenwire.domain.cursor import ChannelKind
from tokenwire.domain.events import ChoiceEnd, FinishReason
from tokenwire.domain.request import Message, Role, Submission
from tokenwire.journal.log import RunLog
from tokenwire.telemetry import names

# Of all texts in one attribute together; collectors refuse or cut what is much larger.
MAX_CHARACTERS = 16_384

_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CONTEXT_LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_call",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.ERROR: "error",
}


def finish_reason(end: ChoiceEnd) -> str:
    """Returns why a choice ended, in the words of the conventions where they have one."""
    return _REASONS.get(end.finish_reason) or end.finish_reason.name.lower()


def input_content(submission: Submission) -> dict[str, AttributeValue]:
    """Returns what a request says. Of a long chat the last messages are told; a prompt of token ids has no text."""
    budget = _Budget()
    if submission.prompt is not None:
        told = [{"role": "user", "parts": [{"type": "text", "content": budget.cut(submission.prompt)}]}]
    else:
        told = [_message(one, budget) for one in reversed(submission.messages) if budget.left]
        told.reverse()
        budget.exceeded = budget.exceeded or len(told) < len(submission.messages)
    attributes: dict[str, AttributeValue] = {names.INPUT_MESSAGES: _json(told)} if told else {}
    if submission.tools:
        attributes[names.TOOL_DEFINITIONS] = _json(
            {"type": "function", "name": one.name, "description": budget.cut(one.description)}
            | ({"parameters": budget.cut(one.parameters_schema)} if one.parameters_schema else {})
            for one in submission.tools
        )
    return attributes | budget.attributes


def output_content(log: RunLog, ends: Iterable[ChoiceEnd]) -> dict[str, AttributeValue]:
    """Returns what was answered; of a long answer the beginning."""
    budget = _Budget()
    told: list[dict[str, Any]] = []
    for end in sorted(ends, key=lambda one: one.choice):
        parts: list[dict[str, Any]] = []
        for channel in log.channels:
            if channel.channel.choice == end.choice:
                # Whoever cuts bytes may cut a code point.
                text = budget.cut(channel.text[: 4 * MAX_CHARACTERS + 4].decode(errors="ignore"))
                parts.append(_part(channel.channel.kind, text))
        told.append({"role": "assistant", "parts": parts, "finish_reason": finish_reason(end)})
    return {names.OUTPUT_MESSAGES: _json(told)} | budget.attributes


class _Budget:
    """How much may still be told."""

    def __init__(self) -> None:
        self.left = MAX_CHARACTERS
        self.exceeded = False

    @property
    def attributes(self) -> dict[str, AttributeValue]:
        return {names.CONTENT_CUT: True} if self.exceeded else {}

    def cut(self, text: str) -> str:
        told = text[: self.left]
        self.exceeded = self.exceeded or len(told) < len(text)
        self.left -= len(told)
        return told


def _message(message: Message, budget: _Budget) -> dict[str, Any]:
    content = budget.cut(message.content)
    if message.role is Role.TOOL:
        parts = [{"type": "tool_call_response", "id": message.tool_call_id, "response": content}]
    else:
        parts = [{"type": "text", "content": content}] if content else []
    parts += [
        {"type": "tool_call", "id": one.id, "name": one.name, "arguments": budget.cut(one.arguments)}
        for one in message.tool_calls
    ]
    return {"role": message.role.value, "parts": parts}


def _part(kind: ChannelKind, text: str) -> dict[str, Any]:
    if kind is ChannelKind.TEXT:
        return {"type": "text", "content": text}
    if kind is ChannelKind.REASONING:
        return {"type": "reasoning", "content": text}
    return {"type": "tool_call", "arguments": text}


def _json(told: Iterable[dict[str, Any]]) -> str:
    return json.dumps(list(told), ensure_ascii=False)
