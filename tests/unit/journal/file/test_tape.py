"""The tape's own rules, where a journal cannot show them."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from tokenwire.journal.file.entries import ForgottenOp
from tokenwire.journal.file.tape import Tape
from tokenwire.journal.file.worker import Worker
from unit.journal.file.faulty_disk import FaultyDisk
from unit.journal.file.kept import segments


class FailsOnce(FaultyDisk):
    """Says once that it could not force out what was written, and then that all is well."""

    def sync(self, descriptor: int) -> None:
        broken, self.broken = self.broken, set()
        if "sync" in broken:
            raise OSError(errno.EIO, "broken")


@pytest.mark.asyncio
async def test_a_segment_is_not_deleted_if_what_replaces_it_may_not_be_on_the_disk(tmp_path: Path) -> None:
    disk, worker, lost = FailsOnce(), Worker(), list[OSError]()
    tape = Tape(
        tmp_path,
        [],
        segment_bytes=1,
        fsync="never",
        fsync_seconds=1.0,
        sealer=None,
        random=os.urandom,
        disk=disk,
        worker=worker,
        lost=lost.append,
    )
    try:
        tape.append([ForgottenOp([1])])
        disk.broken = {"sync"}
        # Begins the next one, and forces this one out; before it is known that this failed, it may be deleted.
        tape.append([ForgottenOp([2])])
        tape.release()
        await tape.idle()
        await asyncio.sleep(0)
        assert lost
        assert len(segments(tmp_path)) == 2
        tape.release()
        await tape.idle()
        assert len(segments(tmp_path)) < 2
    finally:
        worker.close()
        tape.close()
