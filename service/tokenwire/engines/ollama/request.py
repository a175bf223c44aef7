"""A run's request as a body of Ollama's API."""

from typing import Any

import msgspec

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job
from tokenwire.domain.request import Constraint, ReasoningEffort, Sampling, Stopping, Submission, ToolMode
from tokenwire.engines.ollama.catalog import Model
from tokenwire.engines.ollama.messages import chat_messages, chat_tools, json_text
from tokenwire.engines.presets import temperature_and_top_p

CHAT_PATH = "/api/chat"
GENERATE_PATH = "/api/generate"

MAX_TOP_LOGPROBS = 20
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def vet(submission: Submission) -> None:
    """Refuses, naming the field, what Ollama would refuse or misunderstand, whatever the model."""
    chat_messages(submission.messages)
    logprobs = submission.output.logprobs
    if logprobs is not None and (logprobs.top_n or 0) > MAX_TOP_LOGPROBS:
        raise InvalidRequestError(
            "output.logprobs.top_n",
            f"this engine tells at most {MAX_TOP_LOGPROBS}",
            metadata={"limit": str(MAX_TOP_LOGPROBS), "got": str(logprobs.top_n)},
        )
    if submission.constraint is not None:
        _format(submission.constraint)
    if chat_tools(submission.tools) and submission.constraint is not None and _may_call(submission):
        raise InvalidRequestError("constraint", "this engine does not hold an answer to it that may call tools")


def vet_for(submission: Submission, model: Model) -> None:
    """Refuses, naming the field, what this model does not have."""
    effort = submission.reasoning
    if effort is ReasoningEffort.NONE:
        if model.always_reasons:
            raise _lacking("reasoning.effort", "the model always reasons")
    elif effort is not None:
        if model.lacks("thinking"):
            raise _lacking("reasoning.effort", "the model does not reason")
        if not model.has_levels:
            raise _lacking("reasoning.effort", "the model takes no level, in this version of the engine")
    if submission.tools and _may_call(submission) and model.lacks("tools"):
        raise _lacking("tools", "the model does not call tools")


def path_and_body(job: Job, model: Model) -> tuple[str, dict[str, Any]]:
    """Returns the path to post to and the body: a chat for messages, else a completion of the text as it is."""
    submission = job.submission
    body: dict[str, Any] = {
        "model": job.model,
        "stream": True,
        # Else the oldest messages, or the first half of a prompt, are left out in silence when the window is too small,
        "truncate": False,
        # and half of what was read and written is forgotten when it is full.
        "shift": False,
        "options": _options(submission, model),
    }
    logprobs = submission.output.logprobs
    if logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": logprobs.top_n or 0}
    if submission.constraint is not None:
        body["format"] = _format(submission.constraint)
    if not submission.messages:
        text = submission.prompt if job.prompt.text is None else job.prompt.text
        if not text:
            # Ollama would load the model and write nothing.
            raise InvalidRequestError("prompt", "is empty")
        # `think` false: what a model writes between its tags for reasoning is part of a completion.
        return GENERATE_PATH, body | {"prompt": text, "raw": True, "think": False}
    body["messages"] = chat_messages(submission.messages)
    if submission.tools and _may_call(submission):
        body["tools"] = chat_tools(submission.tools)
    if submission.reasoning is not None:
        effort = submission.reasoning
        body["think"] = False if effort is ReasoningEffort.NONE else effort.name.lower()
    return CHAT_PATH, body


def _options(submission: Submission, model: Model) -> dict[str, Any]:
    sampling, stopping = submission.sampling, submission.stopping
    temperature, top_p = temperature_and_top_p(sampling)
    values = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        # Ollama looks back 64 tokens by default, the request means all.
        "repeat_last_n": -1 if _penalises(sampling) else None,
        "seed": sampling.seed,
        "num_predict": stopping.max_tokens,
        "stop": _stops(stopping, model),
        # The window that is announced is the one that holds, whatever the model was loaded with before.
        "num_ctx": model.window,
    }
    return {name: value for name, value in values.items() if value is not None}


def _penalises(sampling: Sampling) -> bool:
    return any(getattr(sampling, field) is not None for field in _PENALTIES)


def _stops(stopping: Stopping, model: Model) -> list[str] | None:
    """Returns the request's stop strings and the model's own, which they would replace."""
    return list(dict.fromkeys((*stopping.stop, *model.stops))) if stopping.stop else None


def _may_call(submission: Submission) -> bool:
    return submission.tool_choice is not ToolMode.NONE


def _format(constraint: Constraint) -> msgspec.Raw | str:
    if constraint.json_schema is not None:
        return json_text(constraint.json_schema, "constraint.json_schema")
    return "json"


def _lacking(field: str, description: str) -> InvalidRequestError:
    return InvalidRequestError(field, description, reason="FEATURE_UNSUPPORTED", metadata={"field": field})
