"""Runs and answers: domain values to protobuf."""

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from tokenwire.delivery.collect import Choice, Collector
from tokenwire.dispatch.run import Run
from tokenwire.rpc.events import (
    to_choice_end,
    to_cursor,
    to_logprob,
    to_matched_stop,
    to_run_error,
    to_timings,
    to_usage,
)
from tokenwire.v1 import finish_pb2, run_pb2


def to_result(run: Run, collector: Collector) -> run_pb2.RunResult:
    """Writes a run's whole answer."""
    end = collector.end
    assert end is not None, "an answer is whole once the run has ended"
    return run_pb2.RunResult(
        run_id=run.id,
        request_id=run.request_id,
        model=run.model,
        choices=[_choice(choice) for choice in collector.choices],
        usage=to_usage(end.usage),
        timings=to_timings(end.timings),
        prompt_logprobs=[to_logprob(one) for one in collector.prompt_logprobs],
    )


def to_run(run: Run) -> run_pb2.Run:
    """Writes what is known of a run."""
    end = run.end
    message = run_pb2.Run(
        run_id=run.id,
        request_id=run.request_id,
        model=run.model,
        engine=run.engine.name if run.engine else "",
        state=state_of(run),
        labels=dict(run.submission.run.labels),
        head=to_cursor(run.log.head_cursor),
        readers=run.readers,
        detached=bool(run.submission.run.detached),
        text_dropped=run.log.dropped,
        choices=[to_choice_end(replace(one, trailing=())) for one in end.choices] if end else [],
        usage=to_usage(run.usage),
        error=to_run_error(end.error) if end and end.error else None,
    )
    for field, seconds in (
        (message.create_time, run.created_at),
        (message.end_time, run.ended_at),
        (message.expire_time, run.expires_at),
    ):
        if seconds is not None:
            _set_time(field, seconds)
    return message


def state_of(run: Run) -> run_pb2.RunState.ValueType:
    """Returns where a run stands."""
    if run.end is not None:
        return run_pb2.RUN_STATE_FAILED if run.error else run_pb2.RUN_STATE_FINISHED
    return run_pb2.RUN_STATE_RUNNING if run.attempt else run_pb2.RUN_STATE_QUEUED


def _choice(choice: Choice) -> run_pb2.Choice:
    return run_pb2.Choice(
        index=choice.index,
        text="".join(choice.text),
        reasoning="".join(choice.reasoning),
        tool_calls=[
            run_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in choice.tool_calls
        ],
        finish_reason=finish_pb2.FinishReason.ValueType(choice.end.finish_reason if choice.end else 0),
        matched_stop=to_matched_stop(choice.end.matched_stop) if choice.end else None,
        token_ids=choice.token_ids,
        logprobs=[to_logprob(one) for one in choice.logprobs],
    )


def _set_time(field: Timestamp, seconds: float) -> None:
    field.FromMilliseconds(int(seconds * 1000))
