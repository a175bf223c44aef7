"""Batches: domain values to protobuf."""

from typing import assert_never

from tokenwire.dispatch.batch import Batch
from tokenwire.domain.events import RunError
from tokenwire.journal.batch import BatchEnd, BatchEntry, BatchStarted, ItemDone, ItemStarted
from tokenwire.rpc.events import to_run_error, to_usage
from tokenwire.v1 import batch_service_pb2, run_pb2

# With fewer items done, nobody can tell how long the rest will take.
ETA_ITEMS = 3


def to_batch_event(
    entry: BatchEntry, result: run_pb2.RunResult | None = None, error: RunError | None = None
) -> batch_service_pb2.BatchEvent:
    """Writes an event of a batch; `result` or `error` is the outcome of an item that ended."""
    message = batch_service_pb2.BatchEvent(seq=entry.seq, elapsed_ms=entry.at_ms)
    match entry.event:
        case BatchStarted() as started:
            message.started.batch_id = started.batch_id
            message.started.retention_seconds = started.retention_seconds
            message.started.max_in_flight = started.max_in_flight
        case ItemStarted() as item:
            message.item_started.item_id, message.item_started.run_id = item.item_id, item.run_id
        case ItemDone() as done:
            message.item_done.item_id, message.item_done.run_id = done.item_id, done.run_id
            if result is not None:
                message.item_done.result.CopyFrom(result)
            else:
                assert error is not None, "an item has an answer, or an error"
                message.item_done.error.CopyFrom(to_run_error(error))
        case BatchEnd() as end:
            message.end.succeeded, message.end.failed = end.succeeded, end.failed
            message.end.usage.CopyFrom(to_usage(end.usage))
        case _:
            assert_never(entry.event)
    return message


def to_progress(batch: Batch, *, closed: bool) -> batch_service_pb2.BatchEvent:
    """Writes how far a batch is; `closed`: no more items come, so their number is known."""
    total = batch.received if closed else max(batch.total, batch.received if batch.total else 0)
    done = batch.succeeded + batch.failed
    elapsed = batch.elapsed_ms
    return batch_service_pb2.BatchEvent(
        progress=batch_service_pb2.BatchProgress(
            total=total,
            received=batch.received,
            running=batch.running,
            succeeded=batch.succeeded,
            failed=batch.failed,
            output_tokens=batch.usage.output_tokens,
            eta_ms=elapsed * (total - done) // done if done >= ETA_ITEMS and total else 0,
        ),
        elapsed_ms=elapsed,
    )
