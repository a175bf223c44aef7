"""Requests: protobuf to domain values."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage

from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.fingerprint import fingerprint
from tokenwire.domain.request import (
    BeamSearch,
    Buffering,
    BufferingMode,
    Constraint,
    Delivery,
    FailoverPolicy,
    KvOptions,
    Limits,
    Logprobs,
    Message,
    Output,
    ReasoningEffort,
    Role,
    RunOptions,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
)
from tokenwire.v1 import (
    chat_service_pb2,
    cursor_pb2,
    delivery_pb2,
    generate_service_pb2,
    message_pb2,
    output_pb2,
    run_pb2,
    sampling_pb2,
)

_ROLES = {
    message_pb2.ROLE_UNSPECIFIED: Role.USER,
    message_pb2.ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.ROLE_USER: Role.USER,
    message_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    message_pb2.ROLE_TOOL: Role.TOOL,
}


def from_generate(request: generate_service_pb2.GenerateRequest) -> Submission:
    """Reads a Generate; a `system` makes a chat of it."""
    if request.WhichOneof("input") == "prompt_ids":
        return _known(Submission(prompt_ids=tuple(request.prompt_ids.ids), **_groups(request)))
    if request.system:
        asked = Message(role=Role.USER, content=request.prompt)
        return _known(Submission(messages=(_system(request.system), asked), **_groups(request)))
    return _known(Submission(prompt=request.prompt, **_groups(request)))


def from_chat(request: chat_service_pb2.ChatRequest) -> Submission:
    """Reads a Chat."""
    messages = from_messages(request.messages)
    if request.system:
        messages = (_system(request.system), *messages)
    choice: ToolMode | str | None = None
    if request.HasField("tool_choice"):
        named = request.tool_choice.WhichOneof("choice") == "name"
        choice = request.tool_choice.name if named else ToolMode(request.tool_choice.mode or ToolMode.AUTO)
    submission = Submission(
        messages=messages,
        tools=tuple(
            Tool(
                name=tool.name,
                description=tool.description,
                parameters_schema=tool.parameters_schema,
                strict=_optional(tool, "strict"),
            )
            for tool in request.tools
        ),
        tool_choice=choice,
        parallel_tool_calls=_optional(request, "parallel_tool_calls"),
        reasoning=ReasoningEffort(request.reasoning.effort) if request.reasoning.effort else None,
        **_groups(request),
    )
    return _known(submission)


def from_messages(messages: Iterable[message_pb2.Message]) -> tuple[Message, ...]:
    """Reads the messages of a chat; one without a role is the user's."""
    return tuple(
        Message(
            role=_ROLES[message.role],
            content=message.content,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in message.tool_calls
            ),
            tool_call_id=message.tool_call_id,
            name=message.name,
        )
        for message in messages
    )


def from_cursor(cursor: cursor_pb2.Cursor) -> Cursor:
    """Reads a cursor."""
    ahead = {Channel(one.choice, ChannelKind(one.kind), one.index): one.byte_offset for one in cursor.ahead}
    return Cursor(cursor.seq, tuple(sorted(ahead.items())), _optional(cursor, "epoch"))


def delivery_of(request: Any) -> Delivery:
    """Returns the delivery options of a request; the empty ones if its type has none."""
    kind: Any = type(request)
    if not _has_delivery(kind) or not request.HasField("delivery"):
        return _NO_DELIVERY
    options: delivery_pb2.Delivery = request.delivery
    buffering = {
        kind: Buffering(
            mode=BufferingMode(one.mode or BufferingMode.NONE),
            size=_optional(one, "size"),
            max_hold_ms=_optional(one, "max_hold_ms"),
        )
        for kind, name, one in (
            (ChannelKind.TEXT, "buffering", options.buffering),
            (ChannelKind.REASONING, "reasoning_buffering", options.reasoning_buffering),
            (ChannelKind.TOOL_CALL, "tool_call_buffering", options.tool_call_buffering),
        )
        if options.HasField(name)  # type: ignore[arg-type]
    }
    unknown = tuple(name for name in ("pacing", "progress") if options.HasField(name))
    return Delivery(buffering=buffering, unknown=(*unknown, *(("language",) if options.language else ())))


# Most requests have none; one is enough for them all.
_NO_DELIVERY = Delivery()


@cache
def _has_delivery(kind: type[Any]) -> bool:
    return issubclass(kind, ProtoMessage) and "delivery" in kind.DESCRIPTOR.fields_by_name


def _known(submission: Submission) -> Submission:
    """Makes a request with an id comparable; nothing else is ever compared."""
    return replace(submission, fingerprint=fingerprint(submission)) if submission.run.request_id else submission


def _groups(request: "generate_service_pb2.GenerateRequest | chat_service_pb2.ChatRequest") -> dict[str, Any]:
    """Reads the groups that are there; of the others all requests share the empty ones."""
    groups = {name: read(getattr(request, name)) for name, read in _GROUPS if request.HasField(name)}
    groups["model"] = request.model
    return groups


def _system(text: str) -> Message:
    return Message(role=Role.SYSTEM, content=text)


def _sampling(group: sampling_pb2.Sampling) -> Sampling:
    beam = group.beam_search
    return Sampling(
        preset=SamplingPreset(group.preset) if group.preset else None,
        temperature=_optional(group, "temperature"),
        top_p=_optional(group, "top_p"),
        top_k=_optional(group, "top_k"),
        min_p=_optional(group, "min_p"),
        repetition_penalty=_optional(group, "repetition_penalty"),
        presence_penalty=_optional(group, "presence_penalty"),
        frequency_penalty=_optional(group, "frequency_penalty"),
        seed=_optional(group, "seed"),
        logit_bias=tuple((one.token_id, one.bias) for one in group.logit_bias),
        n=_optional(group, "n"),
        beam_search=BeamSearch(
            width=beam.width,
            length_penalty=_optional(beam, "length_penalty"),
            early_stopping=_optional(beam, "early_stopping"),
        )
        if group.HasField("beam_search")
        else None,
    )


def _stopping(group: sampling_pb2.Stopping) -> Stopping:
    return Stopping(
        max_tokens=_optional(group, "max_tokens"),
        min_tokens=_optional(group, "min_tokens"),
        stop=tuple(group.stop),
        stop_token_ids=tuple(group.stop_token_ids),
        ignore_eos=_optional(group, "ignore_eos"),
        skip_special_tokens=_optional(group, "skip_special_tokens"),
        include_stop=_optional(group, "include_stop"),
    )


def _constraint(group: sampling_pb2.Constraint) -> Constraint:
    kind = group.WhichOneof("constraint")
    if kind == "choice":
        return Constraint(choice=tuple(group.choice.values))
    if kind == "json_object":
        return Constraint(json_object=True)
    assert kind is not None, "validation requires one"
    return Constraint(**{kind: getattr(group, kind)})


def _output(group: output_pb2.Output) -> Output:
    return Output(
        logprobs=_logprobs(group.logprobs) if group.HasField("logprobs") else None,
        prompt_logprobs=_logprobs(group.prompt_logprobs) if group.HasField("prompt_logprobs") else None,
        token_ids=_optional(group, "token_ids"),
        echo=_optional(group, "echo"),
        full_text=_optional(group, "full_text"),
    )


def _logprobs(group: output_pb2.Logprobs) -> Logprobs:
    top_n, token_ids, whole = _optional(group, "top_n"), tuple(group.token_ids), _optional(group, "all")
    # An empty group asks for the chosen tokens alone.
    return Logprobs(top_n=0 if top_n is None and not token_ids and not whole else top_n, token_ids=token_ids, all=whole)


def _limits(group: run_pb2.Limits) -> Limits:
    return Limits(
        max_duration=_seconds(group, "max_duration"),
        first_token_timeout=_seconds(group, "first_token_timeout"),
        stall_timeout=_seconds(group, "stall_timeout"),
        allow_partial=_optional(group, "allow_partial"),
    )


def _run(group: run_pb2.RunOptions) -> RunOptions:
    return RunOptions(
        request_id=group.request_id,
        orphan_grace=_seconds(group, "orphan_grace"),
        detached=_optional(group, "detached"),
        labels=dict(group.labels),
        failover=FailoverPolicy(group.failover) if group.failover else None,
        priority=_optional(group, "priority"),
    )


def _kv(group: run_pb2.KvOptions) -> KvOptions:
    return KvOptions(lease=group.lease or None, cache_salt=group.cache_salt or None, bypass=_optional(group, "bypass"))


def _optional(message: ProtoMessage, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _seconds(message: ProtoMessage, field: str) -> float | None:
    value: Duration | None = _optional(message, field)
    return None if value is None else value.seconds + value.nanos / 1e9


_GROUPS: tuple[tuple[Any, Callable[[Any], object]], ...] = (
    ("sampling", _sampling),
    ("stopping", _stopping),
    ("constraint", _constraint),
    ("output", _output),
    ("limits", _limits),
    ("run", _run),
    ("kv", _kv),
    ("after", from_cursor),
)
