"""The journal in files: all runs of a process in one log of segments, written once per turn of the event loop."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tokenwire.domain.context import Clock
from tokenwire.journal.file.adoption import Adopted, adopt
from tokenwire.journal.file.commit import GroupCommit
from tokenwire.journal.file.disk import FOLDER_MODE, Disk
from tokenwire.journal.file.held import HeldRun
from tokenwire.journal.file.lock import FolderLock
from tokenwire.journal.file.outage import Outage, OutagePolicy, said
from tokenwire.journal.file.recovery import Found, recover
from tokenwire.journal.file.segment import OldSegment, found_in
from tokenwire.journal.file.tape import SyncPolicy, Tape
from tokenwire.journal.file.worker import Worker
from tokenwire.journal.journal import JournalError, Keeper
from tokenwire.journal.log import RunLog
from tokenwire.journal.memory import LocalJournal
from tokenwire.journal.record import RunRecord
from tokenwire.journal.room import Room
from tokenwire.journal.sealing import Sealer

SEGMENT_BYTES = 64 * 2**20


class FileJournal(LocalJournal):
    """Keeps logs in memory, and in files of one folder, from which a restart takes them up.

    What was appended in one turn of the event loop is written at once, and seen by readers after that. A process that
    dies loses nothing that was seen; a machine that dies loses at most what was not yet forced to the disk.

    Args:
        path: the folder; made if it is not there.
        max_bytes: the bound of what is held in memory. The disk holds about twice as much, and two segments.
        clock: for times of ends.
        fsync: when the files are forced to the disk, `interval` being every `fsync_seconds`.
        segment_bytes: the size at which a new file is begun.
        outage: what becomes of runs while nothing can be written: they go on and are written later, or they fail.
        key: 32 bytes with which all is encrypted; None: it is not.
        random: makes so many random bytes.
        disk: the system's calls.

    Raises JournalError if there is a key and no package that encrypts.
    """

    name = "file"
    durable = True

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        clock: Clock,
        fsync: SyncPolicy = "interval",
        fsync_seconds: float = 1.0,
        segment_bytes: int = SEGMENT_BYTES,
        outage: OutagePolicy = "continue",
        key: bytes | None = None,
        random: Callable[[int], bytes] = os.urandom,
        disk: Disk | None = None,
    ) -> None:
        self._folder = path
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._sealer = None if key is None else Sealer(key)
        self._disk = disk or Disk()
        self._worker = Worker()
        self._room = Room(max_bytes, self._dropped)
        self._outage = Outage(outage, clock)
        self._commit = GroupCommit(self._outage, self._disk_bound, self._fail)
        self._outage.retries(self._commit.retry)
        self._make_tape = partial(
            Tape,
            path,
            segment_bytes=segment_bytes,
            fsync=fsync,
            fsync_seconds=fsync_seconds,
            sealer=self._sealer,
            random=random,
            disk=self._disk,
            worker=self._worker,
            lost=self._commit.lost,
        )
        self._tape: Tape | None = None
        self._lock: FolderLock | None = None
        self._keeper: Keeper | None = None
        self._runs: dict[str, HeldRun] = {}
        self._last_number = 0

    @property
    def held(self) -> int:
        """Bytes of memory reserved or held."""
        return self._room.held

    @property
    def disk_bytes(self) -> int:
        """Bytes of all segments."""
        return self._tape.size if self._tape else 0

    async def start(self, keeper: Keeper) -> None:
        """Reads what is there, and hands over its runs. Raises JournalError if that cannot be."""
        self._keeper = keeper
        try:
            found = await self._worker.call(self._find)
            adopted = self._adopt(found)
            tape = self._tape = self._make_tape(adopted.segments)
            self._commit.write_now(tape, adopted.forgotten)
            # It is on the disk who writes the runs, before one of them goes on.
            await tape.synced()
            tape.release()
        except OSError as error:
            raise JournalError(f"TOKENWIRE_JOURNAL: the folder cannot be used ({said(error)})") from error
        for kept in adopted.finished:
            keeper.restore(kept)
        for kept in adopted.running:
            keeper.take_over(kept)

    async def open(self, record: RunRecord, replaces: str = "") -> RunLog:
        """Opens a run's log and reserves its share; it is written with its first event, before anybody sees that."""
        self._outage.check()
        self._room.reserve(record.run_id, record.share)
        self._last_number += 1
        run = HeldRun(self._last_number, record, RunLog(epoch=1))
        self._runs[record.run_id] = run
        self._commit.add(run)
        self._commit.touch(run.log)
        return run.log

    def extend(self, run_id: str, share: int) -> None:
        """Reserves `share` bytes in all for a run."""
        self._room.reserve(run_id, share)

    def settle(self, run_id: str, ended_at: float) -> None:
        """Replaces the share of a run that has ended by what it really holds."""
        run = self._runs.get(run_id)
        if run is not None:
            run.end(ended_at)
            self._room.settle(run_id, run.log)
            if not run.plain:
                self._commit.touch(run.log)

    def forget(self, run_id: str) -> None:
        """Drops a run; on the disk, too, unless this process leaves: then a restart takes it up."""
        self._room.free(run_id)
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._commit.forget(run)

    async def hand_over(self, run_ids: list[str]) -> None:
        """Writes all that is left and waits for the disk. From now on nothing is forgotten there."""
        self._commit.leaving = True
        await self._commit.write_out()
        for run_id in run_ids:
            run = self._runs.get(run_id)
            if run is not None:
                run.log.sink_into(None)

    async def close(self) -> None:
        """Writes what is left, and lets another process use the folder."""
        self._commit.leaving = True
        try:
            await self._commit.write_out()
        finally:
            self._commit.end()
            self._outage.close()
            self._worker.close()
            if self._tape is not None:
                self._tape.close()
                self._tape = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _find(self) -> Found:
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._lock = FolderLock(self._folder)
        found = recover(found_in(self._folder), self._sealer)
        if found.torn_at is not None:
            os.truncate(found.paths[-1], found.torn_at)
            found.sizes[-1] = found.torn_at
        return found

    def _adopt(self, found: Found) -> Adopted:
        old = [OldSegment(path, size, self._disk) for path, size in zip(found.paths, found.sizes, strict=True)]
        adopted = adopt(found, old, self._room, self._clock.wall())
        self._last_number = found.last_number
        for run in adopted.runs:
            self._runs[run.record.run_id] = run
            self._commit.add(run)
            run.log.publish(run.log.head)
        return adopted

    def _fail(self, run_id: str) -> None:
        if self._keeper is not None:
            self._keeper.fail(run_id)

    def _disk_bound(self) -> int:
        return 2 * (self._room.held + self._commit.record_bytes + self._segment_bytes)

    def _dropped(self, run_id: str) -> None:
        run = self._runs.get(run_id)
        if run is not None:
            self._commit.rewrite(run)
