"""Group commit: what runs got in one turn of the event loop is written as one entry, and then seen by their readers.

Where one turn soon follows the other, those of a millisecond are one: a write costs as much as ten tokens.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from tokenwire.journal.file.entries import ForgottenOp, Written
from tokenwire.journal.file.held import HeldRun
from tokenwire.journal.file.outage import Outage
from tokenwire.journal.file.segment import Segment
from tokenwire.journal.file.tape import Tape
from tokenwire.journal.log import RunLog

_log = structlog.get_logger()

# As much is moved to the last segment, or written after an outage, in one turn: the loop has other things to do.
PORTION_BYTES = 2**20
# From one write to the next. What comes after a pause is written at once.
GATHER_SECONDS = 0.001


class GroupCommit:
    """Writes what is appended to logs, and lets readers see it.

    While nothing can be written, readers see everything at once, and it is written later.

    Args:
        outage: knows whether it can be written.
        disk_bound: tells how many bytes the segments may have.
        fail: ends a run that cannot be written, by its id.

    Attributes:
        tape: where to; None before the start and after the end.
        runs: those that are written, by log.
        record_bytes: what their records have, besides their events.
        leaving: whether the process leaves: from now on runs are forgotten here, and not on the disk.
    """

    def __init__(self, outage: Outage, disk_bound: Callable[[], int], fail: Callable[[str], None]) -> None:
        self._outage = outage
        self._disk_bound = disk_bound
        self._fail = fail
        self.tape: Tape | None = None
        self.runs: dict[RunLog, HeldRun] = {}
        self.record_bytes = 0
        self.leaving = False
        # What is to be written in this turn; what can wait; and numbers of runs that nobody asks for any more.
        self._dirty: dict[RunLog, None] = {}
        self._moving: dict[HeldRun, None] = {}
        self._forgotten: list[int] = []
        self._scheduled = False
        self._next = 0.0
        # The last segment that was written to. Those before `_crowded` may be emptied for the disk; while that is
        # under way, or text was given up, it is untidy there.
        self._newest = 0
        self._crowded = 0
        self._untidy = False

    def add(self, run: HeldRun) -> None:
        """Takes a run."""
        self.runs[run.log] = run
        self.record_bytes += run.record_bytes
        run.log.sink_into(self.touch)

    def touch(self, log: RunLog) -> None:
        """Says that something of a run is to be written; the sink of its log."""
        self._dirty[log] = None
        if not self._scheduled:
            self._schedule()

    def rewrite(self, run: HeldRun) -> None:
        """Lets a run be written anew, as its text was given up."""
        run.again()
        self._crowded, self._untidy = self._newest, True
        self.touch(run.log)

    def forget(self, run: HeldRun) -> None:
        """Drops a run; on the disk, too, unless this process leaves: then a restart takes it up."""
        self.runs.pop(run.log, None)
        self._moving.pop(run, None)
        self.record_bytes -= run.record_bytes
        if self.leaving:
            return
        run.forget()
        self._forgotten.append(run.number)
        if self.tape is not None and not self.runs:
            # No text outlives the last run that can be read.
            self.tape.turn()
        self._crowded = self._newest
        self._tidy()
        self._schedule()

    def write_now(self, tape: Tape, forgotten: list[int]) -> None:
        """Begins with a tape: writes what is missing on it, and at least who was forgotten. Raises OSError."""
        tape.append([ForgottenOp(forgotten)])
        for run in self.runs.values():
            if not run.plain:
                ops = self._ops(run)
                run.kept(tape.append(ops))
        self.tape = tape

    async def write_out(self) -> None:
        """Writes all that is left and waits for the disk, or until that fails."""
        if self.tape is None:
            return
        await self.tape.idle()
        while self._dirty or self._moving or self._forgotten:
            self._write(self.tape)
            await self.tape.idle()
            if self._outage.lasts:
                return
        try:
            await self.tape.synced()
        except OSError as error:
            self._outage.begin(error)

    def retry(self) -> None:
        """Tries to write during an outage."""
        if self.tape is not None and not self.tape.busy:
            self._write(self.tape)

    def lost(self, error: OSError) -> None:
        """Writes everything anew: what was written may not be on the disk."""
        for run in self.runs.values():
            run.again()
            self._moving[run] = None
        self._failed(error, [])

    def end(self) -> None:
        """Writes no more; what is appended is seen at once."""
        self.tape = None
        self._publish()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            loop.call_later(max(0.0, self._next - loop.time()), self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._next = asyncio.get_running_loop().time() + GATHER_SECONDS
        if self.tape is None:
            self._publish()
        elif not self.tape.busy:
            if self._outage.lasts:
                self._go_on()
            else:
                self._write(self.tape)

    def _write(self, tape: Tape) -> None:
        dirty, self._dirty = self._dirty, {}
        forgotten, self._forgotten = self._forgotten, []
        ops: list[Written] = [ForgottenOp(forgotten)] if forgotten else []
        written: list[HeldRun] = []
        for log in dirty:
            run = self.runs.get(log)
            if run is None:
                log.publish(log.head)
            else:
                self._collect(run, ops, written)
        room = PORTION_BYTES
        while self._moving and room > 0:
            run = next(iter(self._moving))
            room -= run.bytes
            self._collect(run, ops, written)
        if self._outage.lasts and not ops:
            # Whether it works can be seen only by trying.
            ops.append(ForgottenOp([]))
        if ops:
            tape.write(ops, partial(self._written, written, forgotten))
        else:
            for run in written:
                run.log.publish(run.log.head)

    def _collect(self, run: HeldRun, ops: list[Written], written: list[HeldRun]) -> None:
        try:
            if run.plain:
                op = run.frame()
                if op is not None:
                    ops.append(op)
            else:
                ops += self._ops(run)
        except Exception as error:
            # Whatever is wrong with one run, the others go on.
            self._unwritable(run, error)
        else:
            written.append(run)
        if self._moving:
            self._moving.pop(run, None)

    def _ops(self, run: HeldRun) -> list[Written]:
        before = run.record_bytes
        ops = run.ops()
        self.record_bytes += run.record_bytes - before
        return ops

    def _unwritable(self, run: HeldRun, error: Exception) -> None:
        run_id = run.record.run_id
        _log.error("bug", run_id=run_id, exc_info=error)
        del self.runs[run.log]
        run.forget()
        self._forgotten.append(run.number)
        run.log.publish(run.log.head)
        self._fail(run_id)

    def _written(self, runs: list[HeldRun], forgotten: list[int], segment: Segment, error: OSError | None) -> None:
        if error is not None:
            self._moving.update((run, None) for run in runs if run.log in self.runs)
            self._forgotten = forgotten + self._forgotten
            self._failed(error, runs)
            return
        for run in runs:
            run.log.publish(run.kept(segment))
        self._outage.over()
        if self._moving or self._dirty or self._forgotten:
            self._schedule()
        if segment.number > self._newest and not self._untidy:
            self._newest = self._crowded = segment.number
            self._tidy()
        elif self._untidy and not self._moving:
            self._tidy()

    def _tidy(self) -> None:
        """Deletes segments that nobody needs, and empties the oldest if the disk holds too much."""
        tape = self.tape
        if tape is None or self._outage.lasts:
            return
        self._untidy = tape.busy
        if tape.busy:
            return
        tape.release()
        oldest, size = tape.crowd
        if oldest.number < self._crowded and not self._moving and size > self._disk_bound():
            self._untidy = True
            for run in self.runs.values():
                if run.base is oldest:
                    run.again()
                    self._moving[run] = None
            self._schedule()

    def _failed(self, error: OSError, runs: list[HeldRun]) -> None:
        fails = self._outage.begin(error)
        for run in runs:
            run.log.publish(run.log.head)
        self._go_on()
        if fails:
            for run in [run for run in self.runs.values() if not run.log.closed]:
                self._fail(run.record.run_id)

    def _go_on(self) -> None:
        """Lets readers see what is written later."""
        self._moving.update((self.runs[log], None) for log in self._dirty if log in self.runs)
        self._publish()

    def _publish(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for log in dirty:
            log.publish(log.head)
