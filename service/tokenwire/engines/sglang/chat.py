"""A run's request as a body of the chat endpoint, whose parsers tell tool calls and reasoning from text."""

from collections.abc import Sequence
from typing import Any

from tokenwire.domain.generation import Job
from tokenwire.domain.request import Message, Submission, ToolMode
from tokenwire.engines.openai.request import CHAT_PATH, STREAMED, common_body, only_set
from tokenwire.engines.openai.tools import message_object, tool_fields
from tokenwire.engines.sglang.constraint import of_chat
from tokenwire.engines.sglang.request import run_and_cache, top_k
from tokenwire.engines.sglang.server import Server

PATH = CHAT_PATH


def needs_chat(submission: Submission, server: Server) -> bool:
    """Whether a request needs what only the chat endpoint has, or could not be rendered."""
    if not submission.messages:
        return False
    return (
        calls_tools(submission)
        or submission.reasoning is not None
        or server.reasoning_parser
        or not server.chats_plainly
        or not server.tokenizes
    )


def calls_tools(submission: Submission) -> bool:
    """Whether the model may call tools."""
    return bool(submission.tools) and submission.tool_choice is not ToolMode.NONE


def chat_body(job: Job, server: Server, request_id: str, salt: str) -> dict[str, Any]:
    """Returns the body; arguments as those of `generate_body`."""
    submission = job.submission
    sampling, stopping, logprobs = submission.sampling, submission.stopping, submission.output.logprobs
    _, body = common_body(job)
    body |= STREAMED | {"messages": _messages(submission.messages)}
    body |= only_set(
        {
            "top_k": top_k(sampling),
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "min_tokens": stopping.min_tokens,
            "stop_token_ids": list(stopping.stop_token_ids) or None,
            "ignore_eos": stopping.ignore_eos,
            "skip_special_tokens": stopping.skip_special_tokens,
            "no_stop_trim": stopping.include_stop,
        }
    )
    if logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": logprobs.top_n or 0}
    if submission.constraint is not None:
        body |= of_chat(submission.constraint)
    return body | {"rid": request_id} | run_and_cache(submission, server, salt)


def rendered_fields(submission: Submission) -> dict[str, Any]:
    """Returns the fields of which a chat's prompt is made."""
    effort = submission.reasoning.name.lower() if submission.reasoning is not None else None
    return {
        "messages": _messages(submission.messages),
        **tool_fields(submission),
        **only_set({"reasoning_effort": effort}),
    }


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    # A template gets no null from the server in Python; from the one in Rust it would, and may fail on it.
    return [message_object(message) | {"content": message.content} for message in messages]
