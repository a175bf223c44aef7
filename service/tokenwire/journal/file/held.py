"""One run, and what of it is written."""

from dataclasses import replace

from tokenwire.domain.generation import Prompt
from tokenwire.journal.file.entries import FRAME_TAG, RunOp, SettledOp, TakenOverOp, Written
from tokenwire.journal.file.segment import OldSegment, Segment
from tokenwire.journal.frames import encode_frame
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord, encode_record


class HeldRun:
    """A run of this process: what it is, and how far it is written.

    `ops` tells what is missing on the disk, `kept` that it is there now. In between the run may go on.

    Attributes:
        number: names the run in the segments.
        record: without what only an engine needs, once the run has ended.
        base: the segment with the run's first entry; None: nothing is written.
        written: the last event that is written.
        ended_at: wall-clock seconds, or None.
        stale: whether it is to be written anew as a whole.
        plain: whether nothing but events can be missing.
    """

    __slots__ = (
        "_gone",
        "_next",
        "_noted",
        "_settled",
        "_whole",
        "base",
        "ended_at",
        "epoch",
        "log",
        "number",
        "plain",
        "record",
        "record_bytes",
        "stale",
        "told",
        "written",
    )

    def __init__(self, number: int, record: RunRecord, log: RunLog) -> None:
        self.number = number
        self.record = record
        self.log = log
        self.base: Segment | OldSegment | None = None
        self.written = 0
        self.told = 0
        self.ended_at: float | None = None
        self.epoch = 0
        self.stale = True
        self.plain = False
        self.record_bytes = 0
        self._gone = False
        self._settled = False
        self._whole = False
        self._next = (0, 0)
        self._noted: tuple[int | None, bool] = (0, False)

    @property
    def bytes(self) -> int:
        """How much is to be written at most, roughly."""
        return self.log.size + self.record_bytes

    def found(self, base: Segment | OldSegment, ended_at: float | None, *, settled: bool) -> None:
        """Says what a restart has found of it on the disk."""
        self.base, self.ended_at, self._settled = base, ended_at, settled
        self.written, self.told = self.log.head, len(self.log.choice_ends)
        self.epoch = self.log.epoch or 0
        self._noted = (self.log.epoch, settled)
        self.stale = False
        self.plain = settled == (ended_at is not None)

    def end(self, ended_at: float) -> None:
        """Notes when the run ended."""
        if self.ended_at is None:
            self.plain = False
            self.ended_at = ended_at
        submission = self.record.submission
        if self.record.prompt != Prompt() or submission.messages or submission.prompt is not None:
            slim = replace(submission, prompt=None, prompt_ids=(), messages=(), tools=(), constraint=None)
            self.record = replace(self.record, prompt=Prompt(), submission=slim)

    def again(self) -> None:
        """Lets all of it be written anew."""
        self.stale, self.plain = True, False

    def taken_over(self) -> None:
        """Lets it be written that a new writer goes on."""
        self.plain = False

    def frame(self) -> Written | None:
        """Returns the events that are missing, or None."""
        log = self.log
        self._whole = False
        self._next = (log.head, len(log.choice_ends))
        if self._next == (self.written, self.told):
            return None
        return (FRAME_TAG, self.number, encode_frame(log, self.written, self.told))

    def ops(self) -> list[Written]:
        """Returns all that is missing."""
        log, ended = self.log, self.ended_at
        self._noted = (log.epoch, ended is not None)
        if self.stale:
            self._whole = True
            self._next = (log.head, len(log.choice_ends))
            record = encode_record(self.record)
            self.record_bytes = len(record)
            frame = encode_frame(log, 0) if log.head else b""
            return [RunOp(self.number, record, log.epoch or 1, log.takeovers, frame, ended)]
        ops: list[Written] = []
        if self.epoch != log.epoch:
            ops.append(TakenOverOp(self.number, *log.takeovers[-1]))
        frame_op = self.frame()
        if frame_op is not None:
            ops.append(frame_op)
        if ended is not None and not self._settled:
            ops.append(SettledOp(self.number, log.head, ended))
        return ops

    def kept(self, segment: Segment) -> int:
        """Says that what `frame` or `ops` returned last is written, and returns its last event."""
        if not self.plain:
            self._kept_more(segment)
        self.written, self.told = self._next
        return self.written

    def release(self) -> None:
        """Lets the segment with the run's first entry go."""
        if self.base is not None:
            self.base.runs -= 1
            self.base = None

    def forget(self) -> None:
        """Says that nobody can ask for it any more, whatever is being written."""
        self.release()
        self._gone = True

    def _kept_more(self, segment: Segment) -> None:
        if self._whole:
            self.stale = False
            if not self._gone:
                self.release()
                self.base = segment
                segment.runs += 1
        epoch, self._settled = self._noted
        self.epoch = epoch or 0
        self.plain = not self.stale and self._settled == (self.ended_at is not None) and self.epoch == self.log.epoch
