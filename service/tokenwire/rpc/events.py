"""Events: domain values to protobuf. `encode` runs once a message and is the last step before the wire."""

from typing import assert_never

from google.protobuf.message import Message as ProtoMessage

from tokenwire.domain.cursor import ChannelKind, Cursor
from tokenwire.domain.events import (
    ChoiceEnd,
    Delta,
    Detached,
    Dispatched,
    End,
    Envelope,
    Heartbeat,
    Progress,
    PromptTokens,
    RunError,
    Start,
    Timings,
    TokenLogprob,
    ToolCallHead,
    Usage,
    UsageUpdate,
)
from tokenwire.v1 import cursor_pb2, event_pb2, finish_pb2


def encode(message: object) -> bytes:
    """Serializes what a handler writes or returns: an Envelope, or a protobuf message."""
    if type(message) is Envelope:
        delta, (seq, ahead, epoch), elapsed_ms = message
        if type(delta) is Delta and not ahead:
            (choice, kind, _), text, byte_offset, token_offset, token_count, token_ids, logprobs = delta
            if not (kind or token_ids or logprobs):
                # What nearly every message is: the same as below, by fewer calls and look-ups.
                event = event_pb2.Event()
                event.elapsed_ms = elapsed_ms
                event.cursor.seq = seq
                if epoch is not None:
                    event.cursor.epoch = epoch
                inner = event.delta
                if choice:
                    inner.choice = choice
                inner.text = text
                inner.byte_offset = byte_offset
                inner.token_offset = token_offset
                inner.token_count = token_count
                return event.SerializeToString()
        return to_event(message).SerializeToString()
    assert isinstance(message, ProtoMessage)
    return message.SerializeToString()


def to_event(envelope: Envelope) -> event_pb2.Event:
    """Writes one message of a stream."""
    inner = envelope.event
    event = event_pb2.Event(elapsed_ms=envelope.elapsed_ms)
    cursor = envelope.cursor
    if cursor.ahead:
        event.cursor.CopyFrom(to_cursor(cursor))
    else:
        event.cursor.seq = cursor.seq
        if cursor.epoch is not None:
            event.cursor.epoch = cursor.epoch
    match inner:
        case Delta():
            _delta(event, inner)
        case Start():
            event.start.run_id = inner.run_id
            event.start.request_id = inner.request_id
            event.start.model = inner.model
            event.start.labels.update(inner.labels)
            event.start.retention_seconds = inner.retention_seconds
        case Dispatched():
            event.dispatched.engine = inner.engine
            event.dispatched.attempt = inner.attempt
            event.dispatched.continuation = event_pb2.Continuation.ValueType(inner.continuation)
        case ToolCallHead():
            head = event.tool_call_delta
            head.choice, head.index = inner.channel.choice, inner.channel.index
            head.id, head.name = inner.id, inner.name
        case UsageUpdate():
            event.usage.attempt = inner.attempt
            event.usage.usage.CopyFrom(to_usage(inner.usage))
        case PromptTokens():
            event.prompt.token_offset = inner.token_offset
            event.prompt.logprobs.extend(to_logprob(one) for one in inner.logprobs)
        case End():
            event.end.CopyFrom(_end(inner))
        case Progress():
            event.progress.CopyFrom(_progress(inner))
        case Heartbeat():
            event.heartbeat.SetInParent()
        case Detached():
            event.detached.reason = event_pb2.DetachReason.ValueType(inner.reason)
            event.detached.resume_within_ms = inner.resume_within_ms
            event.detached.retry_after_ms = inner.retry_after_ms
        case _:
            assert_never(inner)
    return event


def to_cursor(cursor: Cursor) -> cursor_pb2.Cursor:
    """Writes a cursor."""
    return cursor_pb2.Cursor(
        seq=cursor.seq,
        ahead=[
            cursor_pb2.ChannelOffset(
                choice=channel.choice,
                kind=cursor_pb2.ChannelKind.ValueType(channel.kind),
                index=channel.index,
                byte_offset=offset,
            )
            for channel, offset in cursor.ahead
        ],
        epoch=cursor.epoch,
    )


def to_usage(usage: Usage) -> finish_pb2.Usage:
    """Writes token counts."""
    return finish_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def to_timings(timings: Timings) -> finish_pb2.Timings:
    """Writes a run's times."""
    return finish_pb2.Timings(
        queued_ms=timings.queued_ms,
        scheduled_ms=timings.scheduled_ms,
        first_token_ms=timings.first_token_ms,
        completed_ms=timings.completed_ms,
        time_to_first_token_ms=timings.time_to_first_token_ms,
        mean_time_between_tokens_ms=timings.mean_time_between_tokens_ms,
        p99_time_between_tokens_ms=timings.p99_time_between_tokens_ms,
        tokens_per_second=timings.tokens_per_second,
    )


def to_run_error(error: RunError) -> finish_pb2.RunError:
    """Writes why a run failed."""
    return finish_pb2.RunError(
        code=finish_pb2.StatusCode.ValueType(error.code),
        reason=error.reason,
        message=error.message,
        retryable=error.retryable,
        retry_after_ms=int((error.retry_after or 0) * 1000),
    )


def to_choice_end(end: ChoiceEnd) -> event_pb2.ChoiceEnd:
    """Writes how a choice ended."""
    choice = event_pb2.ChoiceEnd(choice=end.choice, finish_reason=finish_pb2.FinishReason.ValueType(end.finish_reason))
    stop = to_matched_stop(end.matched_stop)
    if stop is not None:
        choice.matched_stop.CopyFrom(stop)
    for one in end.trailing:
        choice.trailing.add(
            kind=cursor_pb2.ChannelKind.ValueType(one.channel.kind),
            index=one.channel.index,
            token_ids=one.token_ids,
            logprobs=[to_logprob(logprob) for logprob in one.logprobs],
        )
    return choice


def to_matched_stop(stop: str | int | None) -> finish_pb2.MatchedStop | None:
    """Writes which stop was met."""
    if stop is None:
        return None
    return finish_pb2.MatchedStop(text=stop) if isinstance(stop, str) else finish_pb2.MatchedStop(token_id=stop)


def to_logprob(one: TokenLogprob) -> event_pb2.TokenLogprob:
    """Writes a token's log probability."""
    return event_pb2.TokenLogprob(
        token_id=one.token_id,
        token=one.token,
        logprob=one.logprob,
        top=[to_logprob(top) for top in one.top],
        given=[to_logprob(given) for given in one.given],
    )


def _delta(event: event_pb2.Event, delta: Delta) -> None:
    channel = delta.channel
    if channel.kind is ChannelKind.TOOL_CALL:
        call = event.tool_call_delta
        call.choice, call.index = channel.choice, channel.index
        call.arguments = delta.text
        call.byte_offset = delta.byte_offset
        call.token_offset = delta.token_offset
        call.token_count = delta.token_count
        call.token_ids.extend(delta.token_ids)
        call.logprobs.extend(to_logprob(one) for one in delta.logprobs)
        return
    text = event.reasoning_delta if channel.kind is ChannelKind.REASONING else event.delta
    text.choice = channel.choice
    text.text = delta.text
    text.byte_offset = delta.byte_offset
    text.token_offset = delta.token_offset
    text.token_count = delta.token_count
    if delta.token_ids:
        text.token_ids.extend(delta.token_ids)
    if delta.logprobs:
        text.logprobs.extend(to_logprob(one) for one in delta.logprobs)


def _end(end: End) -> event_pb2.End:
    channels = [
        event_pb2.ChannelEnd(
            choice=one.channel.choice,
            kind=cursor_pb2.ChannelKind.ValueType(one.channel.kind),
            index=one.channel.index,
            bytes=one.bytes,
            tokens=one.tokens,
            sha256=one.sha256,
        )
        for one in end.channels
    ]
    for channel, text in zip(channels, end.texts, strict=False):
        channel.text = text
    return event_pb2.End(
        choices=[to_choice_end(one) for one in end.choices],
        usage=to_usage(end.usage),
        timings=to_timings(end.timings),
        channels=channels,
        error=to_run_error(end.error) if end.error else None,
    )


def _progress(progress: Progress) -> event_pb2.Progress:
    return event_pb2.Progress(
        phase=event_pb2.Phase.ValueType(progress.phase),
        queue_place=progress.queue_place,
        prefill_total=progress.prefill_total,
        prefill_cached=progress.prefill_cached,
        prefill_done=progress.prefill_done,
        tokens=progress.tokens,
        characters=progress.characters,
        estimated_tokens=progress.estimated_tokens,
        percent=progress.percent,
        eta_ms=progress.eta_ms,
        tokens_per_second=progress.tokens_per_second,
    )
