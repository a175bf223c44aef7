"""What the options mean as a request."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError

from tokenwire.cli.options import AnswerOptions
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_NONE, BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import Message
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.sampling_pb2 import Sampling, Stopping


def new_request_id() -> str:
    """Returns an id by which the run can be cancelled, whatever the server has answered by then."""
    return f"cli_{secrets.token_hex(12)}"


def generate_request(prompt: str, options: AnswerOptions, request_id: str) -> GenerateRequest:
    """Writes the request of `generate`."""
    groups = _groups(options, request_id)
    return GenerateRequest(
        model=options.model,
        prompt=prompt,
        system=options.system,
        sampling=groups.sampling,
        stopping=groups.stopping,
        delivery=groups.delivery,
        run=groups.run,
    )


def chat_request(messages: Sequence[Message], options: AnswerOptions, request_id: str) -> ChatRequest:
    """Writes the request of one turn of `chat`."""
    groups = _groups(options, request_id)
    return ChatRequest(
        model=options.model,
        messages=messages,
        system=options.system,
        sampling=groups.sampling,
        stopping=groups.stopping,
        delivery=groups.delivery,
        run=groups.run,
    )


def delivery_of(buffer: str | None) -> Delivery | None:
    """Reads --buffer."""
    if buffer is None:
        return None
    mode, _, size = buffer.partition(":")
    if buffer == "none":
        return Delivery(buffering=Buffering(mode=BUFFERING_MODE_NONE))
    if mode == "size" and size.isascii() and size.isdigit() and 1 <= int(size) <= 65536:
        return Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=int(size)))
    raise typer.BadParameter("wants none, or size:N with N from 1 to 65536.", param_hint="--buffer")


def cursor_of(after: str | None) -> Cursor | None:
    """Reads --after: a number, or a cursor as JSON."""
    if after is None:
        return None
    wanted = typer.BadParameter("wants a number, or a cursor such as '{\"seq\":41}'.", param_hint="--after")
    try:
        given = json.loads(after)
        return ParseDict(given if isinstance(given, dict) else {"seq": given}, Cursor())
    except (ValueError, RecursionError, ParseError):
        raise wanted from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    sampling: Sampling | None
    stopping: Stopping | None
    delivery: Delivery | None
    run: RunOptions


def _groups(options: AnswerOptions, request_id: str) -> _Groups:
    sampling = Sampling(temperature=options.temperature, top_p=options.top_p, seed=options.seed, n=options.n)
    stopping = Stopping(max_tokens=options.max_tokens, stop=options.stop or [])
    grace = Duration()
    grace.FromMilliseconds(round(options.orphan_grace * 1000))
    return _Groups(
        sampling=sampling,
        stopping=stopping,
        delivery=delivery_of(options.buffer),
        run=RunOptions(request_id=request_id, orphan_grace=grace, detached=options.detached or None),
    )
