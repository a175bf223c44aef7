"""What a restart finds in the segments. Nothing is changed here, and what is damaged is left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from tokenwire.journal.file.entries import (
    HEADER_BYTES,
    Entries,
    ForgottenOp,
    FrameOp,
    RunOp,
    SettledOp,
    TakenOverOp,
    UnknownVersionError,
    WrongKeyError,
    read_header,
)
from tokenwire.journal.frames import apply_frame, apply_frames
from tokenwire.journal.journal import JournalError
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import DamagedError
from tokenwire.journal.sealing import Sealer

# Frames wait for others of their run: many at once are much faster than one by one. All together they are bounded.
_MANY = 16
_WAITING = 200_000


@dataclass(slots=True, kw_only=True)
class FoundRun:
    """A run as the segments tell it.

    Attributes:
        number: names it in the segments.
        base: the place of the segment with its first entry, among all.
        record: as `encode_record` has it.
        log: its events up to the last good one; nobody sees them yet.
        ended_at: wall-clock seconds, or None.
        broken: whether something of it is missing.
        frames: what came after its first entry and is not in the log yet.
    """

    number: int
    base: int
    record: bytes
    log: RunLog
    ended_at: float | None
    broken: bool = False
    frames: list[bytes] = field(default_factory=list)

    def apply(self) -> None:
        """Appends the frames to the log, up to the first that does not fit."""
        frames, self.frames = self.frames, []
        if self.broken:
            return
        try:
            if len(frames) < _MANY:
                for frame in frames:
                    apply_frame(self.log, frame)
            else:
                apply_frames(self.log, frames)
        except DamagedError:
            self.broken = True


@dataclass(slots=True, kw_only=True)
class Found:
    """Everything that the segments tell.

    Attributes:
        runs: by number.
        paths: the segments, the oldest first; `sizes` in bytes.
        last_number: the highest number of a run.
        torn_at: where the last segment has to be cut, or None.
        damaged: whether there is something that cannot be trusted, and not just at the very end.
        waiting: how many frames are in no log yet.
    """

    paths: Sequence[Path]
    runs: dict[int, FoundRun] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    last_number: int = 0
    torn_at: int | None = None
    damaged: bool = False
    waiting: int = 0

    def apply(self) -> None:
        """Appends all frames that wait to their logs."""
        for run in self.runs.values():
            run.apply()
        self.waiting = 0


def recover(paths: Sequence[Path], sealer: Sealer | None) -> Found:
    """Reads segments, the oldest first. One is in memory at a time, beside what the runs hold.

    Raises JournalError if a later version wrote them, or the key is missing or wrong; OSError.
    """
    found = Found(paths=paths)
    for place, path in enumerate(paths):
        data = path.read_bytes()
        found.sizes.append(len(data))
        try:
            salt, sealed = read_header(data)
        except UnknownVersionError:
            raise JournalError("TOKENWIRE_JOURNAL: a later version of tokenwire wrote this folder") from None
        except DamagedError:
            # A process that died while it began a segment leaves one that is too short.
            found.torn_at = 0 if len(data) < HEADER_BYTES else None
            found.damaged = found.damaged or len(data) >= HEADER_BYTES or (place + 1 < len(paths) and bool(data))
            continue
        if sealed and sealer is None:
            raise JournalError("TOKENWIRE_JOURNAL_KEY is missing: this journal is encrypted")
        try:
            _read(found, place, Entries(salt, sealer if sealed else None), data)
        except WrongKeyError:
            raise JournalError("TOKENWIRE_JOURNAL_KEY is not the key of this journal") from None
    found.apply()
    return found


def _read(found: Found, place: int, entries: Entries, data: bytes) -> None:
    sound, torn = 0, False
    for end, ops in entries.read(data):
        found.damaged = found.damaged or torn
        torn = ops is None
        if ops is None:
            continue
        sound = end
        for op in ops:
            if isinstance(op, FrameOp):
                # Without its first entry it was forgotten: the segments before are deleted only then.
                run = found.runs.get(op.number)
                if run is not None:
                    run.frames.append(op.frame)
                    found.waiting += 1
            else:
                _apply(found, place, op)
        if found.waiting > _WAITING:
            found.apply()
    found.torn_at = sound if torn else None
    if torn and place + 1 < len(found.paths):
        found.damaged = True


def _apply(found: Found, place: int, op: RunOp | TakenOverOp | SettledOp | ForgottenOp) -> None:
    if isinstance(op, RunOp):
        found.last_number = max(found.last_number, op.number)
        found.runs[op.number] = _begin(place, op)
    elif isinstance(op, TakenOverOp):
        run = found.runs.get(op.number)
        if run is not None:
            run.apply()
            run.broken = run.broken or run.log.head != op.head
            run.log.epoch = op.epoch
            run.log.takeovers.append((op.epoch, op.head))
    elif isinstance(op, SettledOp):
        run = found.runs.get(op.number)
        if run is not None:
            run.apply()
            run.broken = run.broken or run.log.head != op.head
            run.ended_at = op.ended_at
    elif isinstance(op, ForgottenOp):
        for number in op.numbers:
            found.runs.pop(number, None)
    else:
        assert_never(op)


def _begin(place: int, op: RunOp) -> FoundRun:
    log = RunLog(epoch=op.epoch)
    log.takeovers = list(op.takeovers)
    run = FoundRun(number=op.number, base=place, record=op.record, log=log, ended_at=op.ended_at)
    if op.frame:
        run.frames.append(op.frame)
    return run
