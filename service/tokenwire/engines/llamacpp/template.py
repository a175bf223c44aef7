"""What the model's chat template can do: found by what it renders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Message, ReasoningEffort, Submission
from tokenwire.engines.llamacpp import calls, thoughts
from tokenwire.engines.llamacpp.tools import callable_tools, signature, told_in_text

_NAME = "tokenwire_trial"
_RESULT = "tokenwire_result"
_CALL = {"id": "call_0", "type": "function", "function": {"name": _NAME, "arguments": "{}"}}
_USER = {"role": "user", "content": "Hello"}
# A chat with a tool, a call of it and its result.
TRIAL: Mapping[str, Any] = {
    "messages": [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": _RESULT, "tool_call_id": "call_0"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": _NAME,
                "description": "For a trial",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """What a chat template can do.

    Attributes:
        tools: it tells tools, calls and results itself, and calls are written as `calls.CallParser` reads them.
        thinks: the model may reason before it answers.
        switches: its variable `enable_thinking` turns that off.
        efforts: its variable `reasoning_effort` says how much.
    """

    tools: bool = False
    thinks: bool = False
    switches: bool = False
    efforts: bool = False

    @classmethod
    def of(cls, source: str, trial: str) -> "ChatTemplate":
        """Returns what a template can do; `trial` is TRIAL as it renders it, or nothing if it cannot."""
        # The tool, its call and its result; of other forms of a call nothing could be read.
        own = trial.count(_NAME) >= 2 and _RESULT in trial and '"arguments"' in trial and trial.count(calls.OPEN) >= 2
        return cls(
            tools=own,
            thinks=thoughts.OPEN in source,
            switches="enable_thinking" in source,
            efforts="reasoning_effort" in source,
        )

    def check_effort(self, effort: ReasoningEffort | None) -> None:
        """Refuses an effort that the template has no means for."""
        met = self.switches or not self.thinks if effort is ReasoningEffort.NONE else self.efforts
        if effort is not None and not met:
            raise InvalidRequestError(
                "reasoning.effort",
                "the model's chat template has no means for it",
                reason="FEATURE_UNSUPPORTED",
                metadata={"field": f"reasoning.effort={effort.name}"},
            )

    def request(self, submission: Submission) -> dict[str, Any]:
        """Returns the body for `/apply-template` of a chat.

        Raises InvalidRequestError, naming the field, for what the template cannot tell the model.
        """
        self.check_effort(submission.reasoning)
        tools = callable_tools(submission)
        body: dict[str, Any] = {}
        if self.tools:
            messages = list(submission.messages)
            if tools:
                body["tools"] = [signature(tool) for tool in tools]
        else:
            several = submission.parallel_tool_calls is not False
            messages = told_in_text(submission.messages, tools, several=several)
        body["messages"] = [_plain(message) for message in messages]
        variables = self._variables(submission.reasoning)
        if variables:
            body["chat_template_kwargs"] = variables
        return body

    def may_think(self, submission: Submission) -> bool:
        """Returns whether an answer may begin with reasoning: only a chat's does."""
        return self.thinks and bool(submission.messages) and submission.reasoning is not ReasoningEffort.NONE

    def _variables(self, effort: ReasoningEffort | None) -> dict[str, object]:
        if effort is None:
            return {}
        if effort is ReasoningEffort.NONE:
            return {"enable_thinking": False} if self.switches else {}
        # llama.cpp sets this variable by itself, and to false where it sees no reasoning in the template.
        thinking: dict[str, object] = {"enable_thinking": True} if self.switches else {}
        return {**thinking, "reasoning_effort": effort.name.lower()}


def opens_thought(prompt: str | None) -> bool:
    """Returns whether a prompt ends where the model's reasoning begins."""
    return prompt is not None and prompt.rstrip().endswith(thoughts.OPEN)


def _plain(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.name:
        plain["name"] = message.name
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in message.tool_calls
        ]
    return plain
