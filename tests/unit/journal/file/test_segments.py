"""The disk holds what can be read, and not much more; what nobody can ask for is deleted."""

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import record
from harness.run_events import CHANNELS, START, Text, contents, write
from harness.waiting import until
from tokenwire.domain.events import End, Timings, Usage
from tokenwire.journal.file.journal import FileJournal
from tokenwire.journal.log import RunLog
from unit.journal.file.faulty_disk import FaultyDisk
from unit.journal.file.kept import CLOCK, NOW, KeptRuns, crashed, journal_in, segments

END = End(choices=(), usage=Usage(), timings=Timings(), channels=())
SEGMENT = 4000


async def opened(journal: FileJournal, run_id: str, text: str = "word " * 20, *, end: bool = False) -> RunLog:
    log = await journal.open(record(run_id, share=2000, created_at=NOW))
    write(log, [START, Text(CHANNELS[0], text, 1, (7,), ()), *([END] if end else [])])
    await committed(log)
    if end:
        journal.settle(run_id, NOW)
    return log


async def committed(log: RunLog) -> None:
    log.wake()
    while log.committed < log.head:
        await log.changed()


async def deleted(journal: FileJournal) -> None:
    """Waits until what nobody needs is deleted."""
    tape = journal._tape
    assert tape is not None
    await tape.idle()


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in segments(folder))


@pytest.mark.asyncio
async def test_runs_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    async with journal_in(tmp_path, fsync="never", segment_bytes=SEGMENT) as (journal, _):
        for number in range(200):
            await opened(journal, f"{number}", end=True)
            if number >= 5:
                journal.forget(f"{number - 5}")
            if number % 20 == 0:
                await deleted(journal)
                assert journal.disk_bytes <= 2 * journal.held + 3 * SEGMENT
        await journal.hand_over([])
        assert on_disk(tmp_path) <= 2 * journal.held + 4 * SEGMENT
        assert int(segments(tmp_path)[0].name.split(".")[0]) > 10


@pytest.mark.asyncio
async def test_no_text_outlives_the_last_run_that_can_be_read(tmp_path: Path) -> None:
    async with journal_in(tmp_path, fsync="never") as (journal, _):
        await opened(journal, "first", end=True)
        await opened(journal, "second", end=True)
        journal.forget("first")
        await deleted(journal)
        assert b"word" in b"".join(path.read_bytes() for path in segments(tmp_path))
        journal.forget("second")
        await deleted(journal)
        await deleted(journal)
        assert b"word" not in b"".join(path.read_bytes() for path in segments(tmp_path))


@pytest.mark.asyncio
async def test_a_run_that_is_forgotten_while_it_is_written_keeps_no_segment(tmp_path: Path) -> None:
    async with journal_in(tmp_path, fsync="always", segment_bytes=1000) as (journal, _):
        await journal.open(record("gone", share=2000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        journal.forget("gone")
        for number in range(10):
            await opened(journal, f"{number}", end=True)
        for number in range(10):
            journal.forget(f"{number}")
        await journal.hand_over([])
        assert journal.disk_bytes < 2000


@pytest.mark.asyncio
async def test_a_long_run_does_not_keep_what_others_wrote_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    async with journal_in(folder, fsync="never", segment_bytes=SEGMENT) as (journal, _):
        long = await opened(journal, "long")
        kept = await opened(journal, "kept", end=True)
        for number in range(300):
            await opened(journal, f"{number}", end=True)
            journal.forget(f"{number}")
            write(long, [Text(CHANNELS[0], " and", 1, (8,), ())])
            await committed(long)
            for _ in range(3):
                await asyncio.sleep(0)
        await journal.hand_over([])
        # The segments that are written in the meantime come on top.
        assert on_disk(folder) <= 2 * (journal.held + 2000) + 3 * SEGMENT
        assert int(segments(folder)[0].name.split(".")[0]) > 5
        async with journal_in(crashed(folder)) as (_, again):
            assert contents(again.log("long")) == contents(long)
            assert contents(again.log("kept")) == contents(kept)
            assert sorted([*again.running, *again.finished]) == ["kept", "long"]


@pytest.mark.asyncio
async def test_nothing_is_deleted_before_what_replaces_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenwire.journal.file.outage.RETRY_SECONDS", 0.01)
    disk = FaultyDisk()
    async with journal_in(tmp_path, fsync="never", segment_bytes=SEGMENT, disk=disk) as (journal, _):
        long = await opened(journal, "long")
        disk.broken = {"sync"}
        for number in range(100):
            await opened(journal, f"{number}", end=True)
            journal.forget(f"{number}")
            if number % 20 == 0:
                await deleted(journal)
        assert segments(tmp_path)[0].name == "0000000001.journal"
        disk.broken, before = set(), disk.writes
        await until(lambda: disk.writes > before, "it is written again")
        for number in range(100, 120):
            await opened(journal, f"{number}", end=True)
            journal.forget(f"{number}")
            await deleted(journal)
        assert journal.disk_bytes < 2 * journal.held + 3 * SEGMENT
    async with journal_in(tmp_path) as (_, kept):
        assert contents(kept.log("long")) == contents(long)


@pytest.mark.asyncio
async def test_text_that_was_given_up_leaves_the_disk_with_its_segment(tmp_path: Path) -> None:
    async with journal_in(tmp_path, 6000, fsync="never", segment_bytes=1000) as (journal, _):
        old = await opened(journal, "old", "precious " * 200, end=True)
        await opened(journal, "next", "x")
        await opened(journal, "another", "x")
        assert old.dropped
        await journal.hand_over([])
        assert b"precious" not in b"".join(path.read_bytes() for path in segments(tmp_path))
    async with journal_in(tmp_path) as (_, kept):
        assert kept.finished["old"].log.dropped


@pytest.mark.asyncio
async def test_what_was_forgotten_does_not_come_back_from_an_older_segment(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    async with journal_in(folder, fsync="never", segment_bytes=1000) as (journal, _):
        # Both begin in the first segment; what is said of their end is in later ones.
        gone, stays = await opened(journal, "gone"), await opened(journal, "stays")
        for number in range(20):
            await opened(journal, f"{number}", end=True)
        write(gone, [END])
        await committed(gone)
        journal.settle("gone", NOW)
        for number in range(20):
            journal.forget(f"{number}")
        journal.forget("gone")
        for number in range(20, 40):
            await opened(journal, f"{number}", end=True)
            journal.forget(f"{number}")
            async with journal_in(crashed(folder)) as (_, kept):
                assert "gone" not in {**kept.running, **kept.finished}
                assert contents(kept.log("stays")) == contents(stays)


@pytest.mark.asyncio
async def test_after_many_restarts_there_are_few_segments(tmp_path: Path) -> None:
    for _ in range(30):
        async with journal_in(tmp_path, fsync="never", segment_bytes=SEGMENT) as (journal, kept):
            if not kept.running:
                await opened(journal, "long")
    # A run is moved when there is too much on the disk, not because there are many files.
    assert on_disk(tmp_path) < 2 * (2000 + 1000) + 2 * SEGMENT


FULL = """
import asyncio, resource, sys
from pathlib import Path
from unit.journal.file.test_segments import until_the_disk_is_full
asyncio.run(until_the_disk_is_full(Path(sys.argv[1])))
"""


async def until_the_disk_is_full(folder: Path) -> None:
    """Run in a process of its own: a limit of the size of files holds for all that it writes."""
    limit = 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    async with journal_in(folder, fsync="never") as (journal, _):
        log = await opened(journal, "run")
        while log.head < 1000:
            write(log, [Text(CHANNELS[0], "text " * 10, 1, (7,), ())])
            await committed(log)
        assert journal.disk_bytes <= limit
        assert (folder / "0000000001.journal").stat().st_size == journal.disk_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    again = KeptRuns()
    journal = FileJournal(folder, 10**6, clock=CLOCK)
    await journal.start(again)
    try:
        assert contents(again.log("run")) == contents(log)
    finally:
        await journal.close()
    sys.stdout.write("whole")


def test_a_disk_that_is_full_and_has_room_again_in_the_end_loses_nothing(tmp_path: Path) -> None:
    tests = Path(__file__).parents[3]
    path = f"{tests}:{tests.parent / 'service'}"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "journal")],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.endswith("whole"), done.stderr
