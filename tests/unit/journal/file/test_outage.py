"""While nothing can be written, runs go on and are written later, or fail, as the policy says."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.records import record
from harness.run_events import CHANNELS, START, Text, contents, write
from harness.waiting import until
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import End, Timings, Usage
from tokenwire.journal.file.journal import FileJournal
from tokenwire.journal.journal import JournalError
from tokenwire.journal.log import RunLog
from unit.journal.file.faulty_disk import FaultyDisk
from unit.journal.file.kept import NOW, crashed, journal_in

END = End(choices=(), usage=Usage(), timings=Timings(), channels=())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenwire.journal.file.outage.RETRY_SECONDS", 0.01)


def say(log: RunLog, text: str) -> None:
    write(log, [Text(CHANNELS[0], text, 1, (7,), ())])
    log.wake()


async def seen(log: RunLog) -> None:
    while log.committed < log.head:
        await log.changed()


async def opened(journal: FileJournal, run_id: str = "run") -> RunLog:
    log = await journal.open(record(run_id, share=100_000, created_at=NOW))
    write(log, [START])
    log.wake()
    await seen(log)
    return log


async def written_again(disk: FaultyDisk) -> None:
    """Waits for the next successful write."""
    before = disk.writes
    await until(lambda: disk.writes > before, "something is written")


@pytest.mark.asyncio
@pytest.mark.parametrize("fsync", ["never", "always"])
@pytest.mark.parametrize("room", [0, 1, 30, 150])
async def test_runs_go_on_and_all_that_was_not_written_is_written_later(tmp_path: Path, fsync: str, room: int) -> None:
    folder, disk = tmp_path / "journal", FaultyDisk()
    async with journal_in(folder, disk=disk, fsync=fsync) as (journal, _):
        log, gone = await opened(journal), await opened(journal, "gone")
        say(log, "before")
        await seen(log)
        before = log.head
        disk.room = room
        for word in ("while ", "it ", "is ", "full " * 50):
            say(log, word)
            await seen(log)
        new = await opened(journal, "new")
        say(new, "in the outage")
        await seen(new)
        journal.forget("gone")
        say(gone, "nobody reads this")
        # What is on the disk now is whole, up to what was written.
        async with journal_in(crashed(folder)) as (_, kept):
            assert before <= kept.log("run").head <= log.head
            assert contents(kept.log("run")) == contents(log, kept.log("run").head)
        disk.room = None
        await written_again(disk)
        await seen(log)
        say(log, "after")
        await seen(log)
        async with journal_in(crashed(folder)) as (_, kept):
            assert contents(kept.log("run")) == contents(log)
            assert contents(kept.log("new")) == contents(new)
            assert "gone" not in kept.running


@pytest.mark.asyncio
async def test_an_outage_in_which_everything_is_forgotten_ends_as_well(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with capture_logs() as logs:
        async with journal_in(tmp_path, disk=disk, fsync="never") as (journal, _):
            log = await opened(journal)
            disk.broken = {"write"}
            say(log, "lost")
            await seen(log)
            journal.forget("run")
            disk.broken = set()
            await written_again(disk)
            await opened(journal, "next")
    assert [one["event"] for one in logs] == ["the journal cannot be written", "the journal is written again"]


@pytest.mark.asyncio
async def test_an_outage_is_told_once_with_its_cause_and_without_a_path(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with capture_logs() as logs:
        async with journal_in(tmp_path, disk=disk, fsync="never") as (journal, _):
            log = await opened(journal)
            disk.broken = {"write"}
            for word in ("some", "words", "that", "nobody", "can", "write"):
                say(log, word)
                await seen(log)
                await asyncio.sleep(0.02)
    assert len(logs) == 1
    assert (logs[0]["cause"], logs[0]["log_level"]) == ("EIO", "error")
    assert "path" not in str(logs)


@pytest.mark.asyncio
async def test_a_part_of_an_entry_that_cannot_be_cut_away_is_not_followed_by_another(tmp_path: Path) -> None:
    folder, disk = tmp_path / "journal", FaultyDisk()
    async with journal_in(folder, disk=disk, fsync="never") as (journal, _):
        log = await opened(journal)
        disk.room, disk.broken = 20, {"cut"}
        say(log, "long " * 20)
        await seen(log)
        disk.room = None
        say(log, "short")
        await seen(log)
        await asyncio.sleep(0.05)
        async with journal_in(crashed(folder)) as (_, kept):
            assert kept.log("run").head == 1
        disk.broken = set()
        await written_again(disk)
        async with journal_in(crashed(folder)) as (_, kept):
            assert contents(kept.log("run")) == contents(log)


@pytest.mark.asyncio
async def test_where_runs_fail_they_are_told_and_new_ones_refused_until_it_is_over(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with journal_in(tmp_path, disk=disk, fsync="never", outage="fail") as (journal, kept):
        log, done = await opened(journal), await opened(journal, "done")
        write(done, [END])
        done.wake()
        await seen(done)
        disk.broken = {"write"}
        say(log, "lost")
        await seen(log)
        assert kept.failed[:1] == ["run"]
        assert set(kept.failed) == {"run"}
        with pytest.raises(TokenwireError) as caught:
            await journal.open(record("new"))
        error = caught.value
        assert (error.code, error.reason, error.retryable) == (Code.UNAVAILABLE, "JOURNAL_UNAVAILABLE", True)
        assert error.retry_after is not None
        # Its end is seen all the same.
        write(log, [END])
        log.wake()
        await seen(log)
        disk.broken = set()
        await written_again(disk)
        await opened(journal, "new")
    async with journal_in(tmp_path) as (_, again):
        assert contents(again.log("run")) == contents(log)


@pytest.mark.asyncio
@pytest.mark.parametrize("fsync", ["always", "interval"])
async def test_what_may_not_be_on_the_disk_is_written_anew_in_another_segment(tmp_path: Path, fsync: str) -> None:
    folder, disk = tmp_path / "journal", FaultyDisk()
    async with journal_in(folder, disk=disk, fsync=fsync, fsync_seconds=0.01) as (journal, _):
        log = await opened(journal)
        # A restart finds all of it in one segment, whatever becomes of the first.
        disk.broken, before = {"sync"}, disk.writes
        say(log, "on the disk?")
        await seen(log)
        await until(lambda: disk.writes > before + 1, "it is written once more")
        disk.broken, before = set(), disk.syncs
        await until(lambda: disk.syncs > before, "it is on the disk")
        say(log, "yes")
        await seen(log)
        copy = crashed(folder)
        (copy / "0000000001.journal").unlink(missing_ok=True)
        async with journal_in(copy) as (_, kept):
            assert contents(kept.log("run")) == contents(log)


@pytest.mark.asyncio
async def test_a_sync_that_fails_while_there_is_no_run_is_no_outage_for_ever(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with journal_in(tmp_path, disk=disk, outage="fail", fsync_seconds=0.01) as (journal, _):
        await opened(journal)
        journal.forget("run")
        disk.broken, before = {"sync"}, disk.writes
        await until(lambda: disk.writes > before, "it is noticed, and tried again")
        disk.broken, before = set(), disk.syncs
        await until(lambda: disk.syncs > before, "it is on the disk")
        await opened(journal, "next")


@pytest.mark.asyncio
async def test_a_disk_that_cannot_be_written_at_the_start_is_an_error_of_the_setting(tmp_path: Path) -> None:
    for broken in ("create", "write", "sync"):
        disk = FaultyDisk()
        disk.broken = {broken}
        with pytest.raises(JournalError, match=r"TOKENWIRE_JOURNAL: .* \(EIO\)") as caught:
            async with journal_in(tmp_path, disk=disk):
                raise AssertionError
        assert "path" not in str(caught.value)
    async with journal_in(tmp_path):
        pass


@pytest.mark.asyncio
async def test_a_segment_that_cannot_be_deleted_keeps_those_after_it(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with journal_in(tmp_path, disk=disk, fsync="never", segment_bytes=300) as (journal, _):
        disk.broken = {"remove"}
        for number in range(5):
            log = await opened(journal, f"{number}")
            say(log, "x" * 300)
            await seen(log)
        for number in range(5):
            journal.forget(f"{number}")
        await journal.hand_over([])
        names = {path.name for path in tmp_path.glob("*.journal")}
        assert {f"{number:010}.journal" for number in range(1, 6)} <= names
    async with journal_in(tmp_path) as (_, kept):
        assert not kept.running
