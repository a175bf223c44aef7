"""What becomes of the runs that a restart has found."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, RunError, Timings, Usage, UsageUpdate
from tokenwire.journal.file.held import HeldRun
from tokenwire.journal.file.recovery import Found, FoundRun
from tokenwire.journal.file.segment import OldSegment
from tokenwire.journal.journal import Kept
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import DamagedError, RunRecord, decode_record
from tokenwire.journal.room import Room

_log = structlog.get_logger()

_DAMAGED = RunError(
    code=Code.DATA_LOSS, reason="JOURNAL_DAMAGED", message="a part of the run's journal was damaged", retryable=True
)
_FULL = RunError(
    code=Code.DATA_LOSS,
    reason="JOURNAL_FULL",
    message="after a restart, the journal had no room for the run",
    retryable=True,
)


@dataclass(slots=True)
class Adopted:
    """The runs by what becomes of them.

    Attributes:
        segments: where they were found, the oldest first.
        runs: all of them; those that are not plain have to be written.
        finished: those that can be read, in the order of their ends.
        running: those that go on.
        forgotten: numbers of those whose time is over.
    """

    segments: Sequence[OldSegment]
    runs: list[HeldRun] = field(default_factory=list)
    finished: list[Kept] = field(default_factory=list)
    running: list[Kept] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)


def adopt(found: Found, segments: Sequence[OldSegment], room: Room, now: float) -> Adopted:
    """Sorts runs into finished and running ones, with a new epoch for the latter, and finds room for them.

    Those that are damaged end here, after their last good event. If there is too little room, the oldest finished ones
    lose their text.

    Args:
        found: what the segments tell.
        segments: they, in the same order.
        room: what memory is left.
        now: wall-clock seconds.
    """
    adopted = Adopted(segments)
    damaged = found.damaged or any(run.broken for run in found.runs.values())
    if damaged:
        _log.error("the journal was damaged", runs=sum(run.broken for run in found.runs.values()))
    # What is damaged may have been that a run was taken over. Every start begins a segment: a run has not
    # had more writers than there were segments.
    least_epoch = segments[-1].number + 1 if damaged else 0
    for one in found.runs.values():
        try:
            record = decode_record(one.record)
        except DamagedError:
            _log.error("a run in the journal cannot be read")
            adopted.forgotten.append(one.number)
            continue
        run = HeldRun(one.number, record, one.log)
        run.record_bytes = len(one.record)
        ended_at = _end_of(one, record)
        if ended_at is not None and ended_at + record.retention <= now:
            adopted.forgotten.append(one.number)
            continue
        base = segments[one.base]
        base.runs += 1
        run.found(base, ended_at, settled=one.ended_at is not None)
        if not one.log.closed:
            _take_over(one.log, least_epoch)
            run.taken_over()
            if one.broken:
                _end(run, _DAMAGED, now)
        if run.ended_at is not None:
            run.end(run.ended_at)
        adopted.runs.append(run)
    _find_room(adopted, room, now)
    return adopted


def _find_room(adopted: Adopted, room: Room, now: float) -> None:
    dropped = {run for run in adopted.runs if run.log.dropped}
    finished = sorted((run for run in adopted.runs if run.ended_at is not None), key=lambda run: run.ended_at or 0.0)
    for run in finished:
        room.settle(run.record.run_id, run.log)
    for run in adopted.runs:
        if run.ended_at is None:
            run_id = run.record.run_id
            try:
                room.reserve(run_id, max(run.record.share, run.log.size))
            except TokenwireError:
                _end(run, _FULL, now)
                room.settle(run_id, run.log)
                finished.append(run)
            else:
                adopted.running.append(Kept(record=run.record, log=run.log))
    # The bound may be smaller than it was.
    room.shrink()
    for run in finished:
        if run.log.dropped and run not in dropped:
            run.again()
        adopted.finished.append(Kept(record=run.record, log=run.log, ended_at=run.ended_at))


def _end_of(found: FoundRun, record: RunRecord) -> float | None:
    """When a run ended; it may have died before it could say so."""
    if not found.log.closed:
        return None
    return record.created_at + found.log.markers[-1].at_ms / 1000 if found.ended_at is None else found.ended_at


def _take_over(log: RunLog, at_least: int) -> None:
    log.epoch = max((log.epoch or 0) + 1, at_least)
    log.takeovers.append((log.epoch, log.head))


def _end(run: HeldRun, error: RunError, now: float) -> None:
    log = run.log
    at_ms = max([marked.at_ms for marked in log.markers[-1:]] + [channel.at_ms[-1] for channel in log.channels] + [0])
    for choice in range(run.record.submission.n):
        if choice not in log.choice_ends:
            log.note_end(ChoiceEnd(choice=choice, finish_reason=FinishReason.ERROR))
    told = [marked.marker.usage for marked in log.markers if isinstance(marked.marker, UsageUpdate)]
    prompt = told[-1] if told else Usage(prompt_tokens=run.record.prompt.tokens or 0)
    log.add(
        End(
            choices=tuple(log.choice_ends[choice] for choice in range(run.record.submission.n)),
            usage=Usage(
                prompt_tokens=prompt.prompt_tokens,
                cached_tokens=prompt.cached_tokens,
                output_tokens=sum(channel.tokens[-1] for channel in log.channels),
            ),
            timings=Timings(completed_ms=at_ms),
            channels=log.channel_ends(),
            error=error,
        ),
        at_ms,
    )
    run.end(now)
    run.again()
