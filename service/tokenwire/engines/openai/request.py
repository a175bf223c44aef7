"""A run's request as an OpenAI body."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job
from tokenwire.domain.request import Message
from tokenwire.engines.engine import Support
from tokenwire.engines.presets import temperature_and_top_p

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"

# OpenAI and vLLM refuse more.
MAX_STOP_STRINGS = 4

FIELDS: Mapping[str, Support] = MappingProxyType(
    {
        "prompt": Support.NATIVE,
        "prompt_ids": Support.NATIVE,
        "messages": Support.NATIVE,
        "sampling.preset": Support.TRANSLATED,
        "sampling.temperature": Support.NATIVE,
        "sampling.top_p": Support.NATIVE,
        "sampling.presence_penalty": Support.NATIVE,
        "sampling.frequency_penalty": Support.NATIVE,
        "sampling.seed": Support.NATIVE,
        "sampling.n": Support.NATIVE,
        "sampling.logit_bias": Support.NATIVE,
        "stopping.max_tokens": Support.NATIVE,
        "stopping.stop": Support.NATIVE,
    }
)


def endpoint_and_body(job: Job) -> tuple[str, dict[str, Any]]:
    """Returns the path to post to and the body: a chat for messages, else a completion."""
    submission = job.submission
    sampling, stopping = submission.sampling, submission.stopping
    if len(stopping.stop) > MAX_STOP_STRINGS:
        raise InvalidRequestError(
            "stopping.stop",
            f"this engine takes at most {MAX_STOP_STRINGS} stop strings",
            metadata={"limit": str(MAX_STOP_STRINGS), "got": str(len(stopping.stop))},
        )
    temperature, top_p = temperature_and_top_p(sampling)
    values: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "n": sampling.n,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "max_tokens": stopping.max_tokens,
        "stop": list(stopping.stop) or None,
    }
    body: dict[str, Any] = {"model": job.model, "stream": True, "stream_options": {"include_usage": True}}
    body.update((key, value) for key, value in values.items() if value is not None)
    if submission.messages:
        body["messages"] = [_message(message) for message in submission.messages]
        return CHAT_PATH, body
    body["prompt"] = _prompt(job)
    return COMPLETIONS_PATH, body


def _prompt(job: Job) -> str | list[int]:
    ids = job.prompt.token_ids or job.submission.prompt_ids
    if ids:
        return list(ids)
    text = job.submission.prompt if job.prompt.text is None else job.prompt.text
    if not text:
        # SGLang dies of it (seen on CPU), with everybody's requests.
        raise InvalidRequestError("prompt", "is empty")
    return text


def _message(message: Message) -> dict[str, Any]:
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
