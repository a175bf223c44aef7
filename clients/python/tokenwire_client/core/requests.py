"""Writes requests."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage

from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import Delivery
from tokenwire.v1.generate_service_pb2 import GenerateRequest, TokenIds
from tokenwire.v1.message_pb2 import Message, Role
from tokenwire.v1.run_service_pb2 import AttachRunRequest
from tokenwire_client.core.options import CONSTRAINT, RUN, SAMPLING, STOPPING, Prompt, Said

AskT = TypeVar("AskT", GenerateRequest, ChatRequest)

# Who comes back after a broken line finds the run.
ORPHAN_GRACE_SECONDS = 30.0
MAX_TIMEOUT_SECONDS = 86_400.0


def generate_request(prompt: Prompt | GenerateRequest, options: Mapping[str, Any]) -> GenerateRequest:
    """Writes the request of a prompt, or fills in a copy of one that is ready. Raises TypeError, ValueError."""
    request = GenerateRequest()
    if isinstance(prompt, GenerateRequest):
        request.CopyFrom(prompt)
    elif isinstance(prompt, str):
        request.prompt = prompt
    elif isinstance(prompt, TokenIds):
        request.prompt_ids.CopyFrom(prompt)
    else:
        request.prompt_ids.ids.extend(prompt)
    return _filled(request, options)


def chat_request(messages: Sequence[Said] | ChatRequest | str, options: Mapping[str, Any]) -> ChatRequest:
    """Writes the request of a chat, or fills in a copy of one that is ready. Raises TypeError, ValueError."""
    request = ChatRequest()
    if isinstance(messages, ChatRequest):
        request.CopyFrom(messages)
    else:
        said = [messages] if isinstance(messages, str) else messages
        request.messages.extend(_message(one) for one in said)
    return _filled(request, options)


def attach_request(
    run_id: str, request_id: str, after: Cursor | int | None, delivery: Delivery | None
) -> AttachRunRequest:
    """Writes the request that follows a run. Raises ValueError unless exactly one of the ids is given."""
    named(run_id, request_id)
    cursor = Cursor(seq=after) if isinstance(after, int) else after
    request = AttachRunRequest(after=cursor, delivery=delivery)
    if run_id:
        request.run_id = run_id
    else:
        request.request_id = request_id
    return request


def named(run_id: str, request_id: str) -> dict[str, str]:
    """Returns the field that names a run. Raises ValueError unless exactly one of the ids is given."""
    if bool(run_id) == bool(request_id):
        raise ValueError("give either a run_id or a request_id")
    return {"run_id": run_id} if run_id else {"request_id": request_id}


def checked_timeout(seconds: float | None) -> float | None:
    """Returns a timeout that grpc takes for what it is: 0 would be none, a huge one over at once. Raises ValueError."""
    if seconds is not None and not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise ValueError(f"a timeout is above 0 and up to {MAX_TIMEOUT_SECONDS:.0f} seconds")
    return seconds


def new_id(prefix: str) -> str:
    """Returns an id that nobody else has."""
    return f"{prefix}_{secrets.token_hex(12)}"


def duration(seconds: float) -> Duration:
    """Returns seconds as protobuf has them."""
    message = Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message


def _message(said: Said) -> Message:
    if isinstance(said, Message):
        return said
    if isinstance(said, str):
        return Message(content=said)
    role, content = said
    return Message(role=Role.Value(f"ROLE_{role.upper()}"), content=content)


def _filled(request: AskT, options: Mapping[str, Any]) -> AskT:
    groups = dict.fromkeys(SAMPLING, "sampling") | dict.fromkeys(STOPPING, "stopping")
    groups |= dict.fromkeys(CONSTRAINT, "constraint") | dict.fromkeys(RUN, "run")
    # Whole groups come first, so that single fields win.
    for name, value in sorted(options.items(), key=lambda option: option[0] in groups):
        if value is None:
            continue
        if name == "orphan_grace":
            request.run.orphan_grace.CopyFrom(duration(value))
        elif name in groups:
            _set(getattr(request, groups[name]), name, value)
        elif name in request.DESCRIPTOR.fields_by_name:
            _set(request, name, value)
        else:
            raise TypeError(f"there is no option {name}")
    if not request.run.request_id:
        request.run.request_id = new_id("py")
    if not request.run.HasField("orphan_grace"):
        request.run.orphan_grace.CopyFrom(duration(ORPHAN_GRACE_SECONDS))
    return request


def _set(message: ProtoMessage, name: str, value: Any) -> None:
    if isinstance(value, ProtoMessage):
        getattr(message, name).CopyFrom(value)
    elif isinstance(value, Mapping):
        getattr(message, name).clear()
        getattr(message, name).update(value)
    elif name == "stop" and isinstance(value, str):
        _set(message, name, [value])
    elif isinstance(value, str) or not isinstance(value, Sequence):
        setattr(message, name, value)
    else:
        del getattr(message, name)[:]
        getattr(message, name).extend(value)
