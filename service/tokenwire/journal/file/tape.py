"""The segments of one journal in their order: what is written goes to the last, what nobody needs goes first."""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from tokenwire.journal.file.disk import Disk
from tokenwire.journal.file.entries import SALT_BYTES, Written
from tokenwire.journal.file.segment import OldSegment, Segment, path_of
from tokenwire.journal.file.worker import Worker
from tokenwire.journal.sealing import Sealer

_log = structlog.get_logger()

# When what was written is forced to the disk: before anybody sees it, every so many seconds, or by the system alone.
SyncPolicy = Literal["always", "interval", "never"]
Done = Callable[[Segment, OSError | None], None]


class Tape:
    """Appends entries, begins segments, forces them to the disk, and deletes them.

    Args:
        folder: where they are.
        old: those that are there, the oldest first.
        segment_bytes: the size at which a new one is begun.
        fsync: when they are forced to the disk; `fsync_seconds` is the interval.
        sealer: encrypts; None: they are plain.
        lost: is told that what was written may not be on the disk, for all that the system said.

    Attributes:
        segments: the oldest first.
        busy: whether a write is under way; there is one at a time.
    """

    def __init__(
        self,
        folder: Path,
        old: Sequence[OldSegment],
        *,
        segment_bytes: int,
        fsync: SyncPolicy,
        fsync_seconds: float,
        sealer: Sealer | None,
        random: Callable[[int], bytes],
        disk: Disk,
        worker: Worker,
        lost: Callable[[OSError], None],
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._fsync_seconds = fsync_seconds
        self._sealer = sealer
        self._random = random
        self._disk = disk
        self._worker = worker
        self._lost = lost
        self._removing = False
        # Syncs that failed, as the worker and as the event loop know it.
        self._failures = 0
        self._known_failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._unsynced: dict[Segment, None] = {}
        self.busy = False
        self.segments: list[Segment | OldSegment] = list(old)
        self._current = self._begin()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def crowd(self) -> tuple[Segment | OldSegment, int]:
        """Returns the oldest segment that is needed, and the bytes of it and all after it."""
        needed = self.segments[self._first_needed :]
        return needed[0], sum(segment.size for segment in needed)

    @property
    def current(self) -> Segment:
        """The segment that the next entry goes to."""
        if self._current.size >= self._segment_bytes:
            self.turn()
        return self._current

    def turn(self) -> None:
        """Begins a new segment, unless nothing is in this one."""
        if self._current.size:
            self._unsynced[self._current] = None
            self._current = self._begin()
            self._sync()

    def write(self, ops: list[Written], done: Done) -> None:
        """Writes operations as one entry, then calls `done`: at once, or once they are on the disk."""
        segment = self.current
        entry = segment.pack(ops)
        if self._fsync == "always":
            self.busy = True
            self._worker.begin(
                partial(self._append_and_sync, segment, entry, self._known_failures),
                partial(self._written, segment, done),
            )
            return
        try:
            segment.append(entry)
        except OSError as error:
            done(segment, error)
            return
        self._unsynced[segment] = None
        if self._timer is None and self._fsync == "interval":
            self._timer = asyncio.get_running_loop().call_later(self._fsync_seconds, self._on_time)
        done(segment, None)

    def append(self, ops: list[Written]) -> Segment:
        """Writes operations at once, whatever the policy. Raises OSError."""
        segment = self.current
        segment.append(segment.pack(ops))
        self._unsynced[segment] = None
        return segment

    def release(self) -> None:
        """Deletes the segments before the first one that a run needs, but only once all after them is on the disk.

        An older one never outlives a later one: that is where it is said what was forgotten.
        """
        if self._removing or self.busy:
            # A run that is being written is not counted yet.
            return
        free = self.segments[: self._first_needed]
        if free:
            self._removing = True
            unsynced = self._take_unsynced()
            self._worker.begin(
                partial(self._remove, unsynced, free, self._known_failures), partial(self._removed, free)
            )

    async def idle(self) -> None:
        """Waits until nothing is under way."""
        await self._worker.idle()

    async def synced(self) -> None:
        """Waits until all that was written is on the disk. Raises OSError."""
        await self._worker.idle()
        unsynced = self._take_unsynced()
        await self._worker.call(partial(self._sync_all, unsynced, self._known_failures))

    def close(self) -> None:
        """Writes no more. The worker must be idle."""
        if self._timer is not None:
            self._timer.cancel()
        for segment in (*self.segments, *self._unsynced):
            segment.close()

    @property
    def _first_needed(self) -> int:
        last = len(self.segments) - 1
        return next((place for place in range(last) if self.segments[place].runs), last)

    def _begin(self) -> Segment:
        number = self.segments[-1].number + 1 if self.segments else 1
        path, salt = path_of(self._folder, number), self._random(SALT_BYTES)
        segment = Segment(path, salt, self._sealer, self._disk)
        self.segments.append(segment)
        return segment

    def _written(self, segment: Segment, done: Done, error: OSError | None) -> None:
        self.busy = False
        if isinstance(error, SyncError):
            self._give_up(error)
        done(segment, error)

    def _on_time(self) -> None:
        self._timer = None
        self._sync()

    def _sync(self) -> None:
        unsynced = self._take_unsynced()
        if unsynced:
            self._worker.begin(partial(self._sync_all, unsynced, self._known_failures), partial(self._synced, unsynced))

    def _synced(self, unsynced: Sequence[Segment], error: OSError | None) -> None:
        if error is not None:
            self._give_up(error)
        for segment in unsynced:
            if segment is not self._current:
                self._worker.begin(segment.close, _ignore)

    def _give_up(self, error: OSError) -> None:
        """Goes on in a new segment: what the system failed to force to the disk once, it may hold for written."""
        self._known_failures = self._failures
        self._worker.begin(self._current.close, _ignore)
        self._unsynced.pop(self._current, None)
        if self._current.size:
            self._current = self._begin()
        self._lost(error)

    def _take_unsynced(self) -> list[Segment]:
        unsynced, self._unsynced = list(self._unsynced), {}
        return unsynced

    def _removed(self, free: Sequence[Segment | OldSegment], error: OSError | None) -> None:
        self._removing = False
        gone = sum(not segment.size for segment in free)
        self.segments = self.segments[gone:]
        if isinstance(error, SyncError):
            self._give_up(error)
        elif error is not None:
            _log.error("a part of the journal cannot be deleted")
        else:
            self.release()

    # What follows is done by the worker.

    def _append_and_sync(self, segment: Segment, entry: bytearray, known: int) -> None:
        segment.append(entry)
        self._sync_all([segment], known)

    def _sync_all(self, segments: Sequence[Segment], known: int) -> None:
        if known != self._failures:
            # The event loop did not know yet: nothing may rely on what came before.
            raise SyncError(errno.EIO, os.strerror(errno.EIO))
        for segment in segments:
            try:
                segment.sync()
            except OSError as error:
                self._failures += 1
                raise SyncError(error.errno, error.strerror) from error

    def _remove(self, unsynced: Sequence[Segment], free: Sequence[Segment | OldSegment], known: int) -> None:
        self._sync_all(unsynced, known)
        for segment in free:
            segment.remove()
            segment.size = 0


class SyncError(OSError):
    """What was written may not be on the disk."""


def _ignore(error: OSError | None) -> None:
    """A file that was not closed well is synced, or given up."""
