"""A run's request as an OpenAI body."""

from typing import Any

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job
from tokenwire.domain.request import Constraint, Submission
from tokenwire.engines.openai.tools import message_object, tool_fields, vet_tools
from tokenwire.engines.presets import temperature_and_top_p
from tokenwire.engines.schemas import json_object

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"

# OpenAI refuses more.
MAX_STOP_STRINGS = 4
# What OpenAI takes for a completion without a limit; a chat goes on to the end of the window.
COMPLETION_TOKENS_DEFAULT = 16

STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def vet(submission: Submission) -> None:
    """Refuses values that OpenAI's API refuses, or that a server of it would pass over in silence."""
    stop, constraint = submission.stopping.stop, submission.constraint
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequestError(
            "stopping.stop",
            f"this engine takes at most {MAX_STOP_STRINGS} stop strings",
            metadata={"limit": str(MAX_STOP_STRINGS), "got": str(len(stop))},
        )
    vet_tools(submission)
    if constraint is not None:
        if not submission.messages:
            field = "constraint.json_schema" if constraint.json_schema is not None else "constraint.json_object"
            raise InvalidRequestError(field, "this engine has it for messages only", reason="FEATURE_UNSUPPORTED")
        _response_format(constraint)
    if submission.output.echo and submission.prompt is None:
        raise InvalidRequestError(
            "output.echo", "this engine has it for a prompt text only", reason="FEATURE_UNSUPPORTED"
        )


def endpoint_and_body(job: Job) -> tuple[str, dict[str, Any]]:
    """Returns the path to post to and the body: a chat for messages, else a completion."""
    path, body = common_body(job)
    body |= STREAMED
    submission = job.submission
    if submission.constraint is not None:
        body["response_format"] = _response_format(submission.constraint)
    logprobs = submission.output.logprobs
    if logprobs is not None:
        # One at least: at 0, llama.cpp tells nothing at all.
        most = max(1, logprobs.top_n or 0)
        body |= {"logprobs": True, "top_logprobs": most} if path == CHAT_PATH else {"logprobs": most}
    return path, body


def common_body(job: Job) -> tuple[str, dict[str, Any]]:
    """Returns the path, and the part of the body that every server of this API has in common."""
    submission = job.submission
    sampling, stopping = submission.sampling, submission.stopping
    temperature, top_p = temperature_and_top_p(sampling)
    body: dict[str, Any] = {"model": job.model}
    body |= only_set(
        {
            "temperature": temperature,
            "top_p": top_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": sampling.seed,
            "n": sampling.n,
            "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
            "max_tokens": stopping.max_tokens,
            "stop": list(stopping.stop) or None,
            "reasoning_effort": submission.reasoning.name.lower() if submission.reasoning is not None else None,
        }
    )
    if not submission.messages:
        return COMPLETIONS_PATH, body | {"prompt": _prompt(job)}
    body["messages"] = [message_object(message) for message in submission.messages]
    return CHAT_PATH, body | tool_fields(submission)


def only_set(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def _prompt(job: Job) -> str | list[int]:
    """Returns the prompt, as ids where they are known: they are exact, and the engine need not find them again."""
    ids = job.prompt.token_ids or job.submission.prompt_ids
    if ids:
        return list(ids)
    text = job.submission.prompt if job.prompt.text is None else job.prompt.text
    if not text:
        # SGLang dies of it (seen on CPU), with everybody's requests.
        raise InvalidRequestError("prompt", "is empty")
    return text


def _response_format(constraint: Constraint) -> dict[str, Any]:
    if constraint.json_schema is None:
        return {"type": "json_object"}
    schema = json_object(constraint.json_schema, "constraint.json_schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
