"""Runs in the file journal: written before they are seen, and there again after a restart."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from harness.records import record
from harness.run_events import START, Text, contents, write
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.events import ChoiceEnd, End, FinishReason, Timings, Usage
from tokenwire.domain.generation import Prompt
from tokenwire.journal.file.journal import FileJournal
from tokenwire.journal.journal import JournalError
from tokenwire.journal.log import RunLog
from unit.journal.file.kept import CLOCK, NOW, ROOM, KeptRuns, crashed, journal_in, segments

DONE = ChoiceEnd(choice=0, finish_reason=FinishReason.STOP)
END = End(choices=(DONE,), usage=Usage(), timings=Timings(), channels=())


def word(text: str = " word", channel: Channel = Channel()) -> Text:  # noqa: B008 - a constant
    return Text(channel, text, 1, (7,), ())


async def written(log: RunLog) -> None:
    """Waits until all of a log is committed."""
    log.wake()
    while log.committed < log.head:
        await log.changed()


async def opened(journal: FileJournal, run_id: str = "run", words: int = 3, **facts: Any) -> RunLog:
    log = await journal.open(record(run_id, **({"share": 4000, "created_at": NOW} | facts)))
    write(log, [START, *[word()] * words])
    await written(log)
    return log


async def ended(journal: FileJournal, run_id: str = "run", ended_at: float = NOW, **facts: Any) -> RunLog:
    log = await opened(journal, run_id, **facts)
    write(log, [END])
    await written(log)
    journal.settle(run_id, ended_at)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return log


@pytest.mark.asyncio
async def test_a_reader_sees_nothing_that_is_not_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    async with journal_in(folder) as (journal, _):
        log = await journal.open(record())
        seen = []
        for step in range(3):
            write(log, [START] if not step else [word(f"{step}" * 50)])
            log.wake()
            seen.append((log.head, log.committed))
            await log.changed()
            seen.append((log.head, log.committed))
            copy = crashed(folder)
            async with journal_in(copy) as (_, kept):
                assert contents(kept.log("run")) == contents(log, step + 1)
        assert seen == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


@pytest.mark.asyncio
async def test_all_that_is_appended_in_one_turn_is_one_write(tmp_path: Path) -> None:
    from tokenwire.journal.file.disk import Disk

    writes = []

    class Counting(Disk):
        def write(self, descriptor: int, data: memoryview, at: int) -> int:
            writes.append(len(data))
            return super().write(descriptor, data, at)

    async with journal_in(tmp_path, disk=Counting()) as (journal, _):
        writes.clear()
        logs = [await journal.open(record(f"{number}")) for number in range(20)]
        for log in logs:
            write(log, [START, word(), END])
            log.wake()
        assert not writes
        await asyncio.gather(*(written(log) for log in logs))
        assert len(writes) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("fsync", ["always", "interval", "never"])
async def test_a_finished_run_can_be_read_after_a_restart(tmp_path: Path, fsync: str) -> None:
    async with journal_in(tmp_path, fsync=fsync) as (journal, _):
        log = await ended(journal, ended_at=NOW - 5, prompt="secret")
    async with journal_in(tmp_path, fsync=fsync) as (journal, kept):
        (one,) = kept.finished.values()
        assert not kept.running
        assert contents(one.log) == contents(log)
        assert (one.ended_at, one.log.committed, one.log.epoch) == (NOW - 5, log.head, 1)
        assert one.log.end == END
        assert one.log.takeovers == []
        # What only an engine needs is not held any longer.
        assert (one.record.prompt, one.record.submission.prompt) == (Prompt(), None)
        assert journal.held == one.log.size


@pytest.mark.asyncio
@pytest.mark.parametrize("leave", ["closed", "killed"])
async def test_a_running_run_goes_on_after_every_restart_with_a_new_epoch(tmp_path: Path, leave: str) -> None:
    folder = tmp_path / "journal"
    async with journal_in(folder) as (journal, _):
        log = await opened(journal)
        log.note_end(DONE)
        await written(log)
        log.wake()
        await log.changed()
        copy = crashed(folder, "0")
    folder = folder if leave == "closed" else copy
    for restart in range(1, 4):
        async with journal_in(folder) as (journal, kept):
            one = kept.running["run"]
            assert one.log.epoch == restart + 1
            assert one.log.takeovers == [(epoch, epoch + 2) for epoch in range(2, restart + 2)]
            assert (one.log.committed, one.log.head) == (restart + 3, restart + 3)
            assert one.log.choice_ends == {0: DONE}
            assert one.record == record(created_at=NOW)
            assert journal.held == 4000
            write(one.log, [word(f"{restart}")])
            assert one.log.committed < one.log.head
            await written(one.log)
            copy = crashed(folder, f"{restart}")
        folder = folder if leave == "closed" else copy
    assert bytes(one.log.channels[0].text) == b" word word word123"


@pytest.mark.asyncio
async def test_who_writes_a_run_is_on_the_disk_before_it_goes_on(tmp_path: Path) -> None:
    from tokenwire.journal.file.disk import Disk

    order: list[str] = []

    class Noting(Disk):
        def sync(self, descriptor: int) -> None:
            order.append("synced")
            super().sync(descriptor)

    class Keeper(KeptRuns):
        def take_over(self, kept: Any) -> None:
            order.append("taken over")

    async with journal_in(tmp_path) as (journal, _):
        await opened(journal)
    journal = FileJournal(tmp_path, ROOM, clock=CLOCK, fsync="never", disk=Noting())
    try:
        await journal.start(Keeper())
        assert order == ["synced", "taken over"]
    finally:
        await journal.close()


@pytest.mark.asyncio
async def test_a_run_that_died_before_it_could_say_when_it_ended_ended_with_its_last_event(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        log = await opened(journal, created_at=NOW - 10)
        write(log, [END], at_ms=2500)
        await written(log)
    for _ in range(2):
        async with journal_in(tmp_path) as (_, kept):
            assert kept.finished["run"].ended_at == NOW - 7.5


@pytest.mark.asyncio
async def test_a_run_whose_retention_is_over_is_not_there_any_more(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await ended(journal, "old", NOW - 300, retention=300.0)
        await ended(journal, "new", NOW - 299, retention=300.0)
    async with journal_in(tmp_path) as (journal, kept):
        assert list(kept.finished) == ["new"]
        assert journal.held == kept.log("new").size


@pytest.mark.asyncio
async def test_what_was_forgotten_stays_so_and_its_segments_are_deleted(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await ended(journal, "gone")
        await opened(journal, "stays")
        journal.forget("gone")
        await asyncio.sleep(0)
    async with journal_in(tmp_path) as (journal, kept):
        assert list(kept.running) == ["stays"]
        assert not kept.finished
        journal.forget("stays")
        await journal.hand_over([])
        assert journal.held == 0
    assert b"word" not in b"".join(path.read_bytes() for path in segments(tmp_path))


@pytest.mark.asyncio
async def test_a_process_that_leaves_forgets_nothing_on_the_disk(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await ended(journal, "done")
        log = await opened(journal, "runs")
        await journal.hand_over(["runs"])
        # What comes after that is nobody's any more: the restart writes the run.
        write(log, [word("too late")])
        log.wake()
        assert log.committed == log.head
        for run_id in ("done", "runs"):
            journal.forget(run_id)
        assert journal.held == 0
    async with journal_in(tmp_path) as (_, kept):
        assert (list(kept.finished), list(kept.running)) == (["done"], ["runs"])
        assert bytes(kept.log("runs").channels[0].text) == b" word word word"


@pytest.mark.asyncio
async def test_a_run_opened_by_its_record_alone_is_known_after_a_restart(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.open(record("a", request_id="mine"))
    async with journal_in(tmp_path) as (_, kept):
        assert kept.running["a"].log.head == 0
        assert kept.running["a"].record.submission.run.request_id == "mine"


@pytest.mark.asyncio
async def test_text_that_was_given_up_does_not_come_back(tmp_path: Path) -> None:
    async with journal_in(tmp_path, 20_000) as (journal, _):
        old = await ended(journal, "old", NOW - 2, words=1000, share=15_000)
        await opened(journal, "new", share=15_000)
        assert old.dropped
    async with journal_in(tmp_path, 20_000) as (_, kept):
        log = kept.finished["old"].log
        assert log.dropped
        assert contents(log) == contents(old)
        assert log.end == END


@pytest.mark.asyncio
async def test_under_a_smaller_bound_the_oldest_finished_runs_lose_their_text(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for number in range(4):
            await ended(journal, f"{number}", NOW - 10 + number, words=100)
        running = await opened(journal, "running", share=2000)
        held = running.size
        size = journal.held
    async with journal_in(tmp_path, size - 2000) as (journal, kept):
        assert [kept.log(f"{number}").dropped for number in range(4)] == [True, False, False, False]
        assert journal.held <= size - 2000
    async with journal_in(tmp_path, held) as (journal, kept):
        assert all(kept.log(f"{number}").dropped for number in range(4))
        error = kept.finished["running"].log.end
        assert error is not None
        assert error.error is not None
        assert (error.error.reason, error.error.retryable) == ("JOURNAL_FULL", True)
    async with journal_in(tmp_path) as (_, kept):
        assert len(kept.finished) == 5
        assert not kept.running
        assert all(kept.log(f"{number}").dropped for number in range(4))


@pytest.mark.asyncio
async def test_a_share_that_does_not_fit_is_refused_and_not_written(tmp_path: Path) -> None:
    async with journal_in(tmp_path, 5000) as (journal, _):
        with pytest.raises(TokenwireError, match="no room"):
            await journal.open(record("huge", share=6000))
        await opened(journal, "small", share=1000)
        journal.extend("small", 2000)
        assert journal.held == 2000
    async with journal_in(tmp_path) as (_, kept):
        assert list(kept.running) == ["small"]


@pytest.mark.asyncio
async def test_a_wake_without_events_reaches_the_readers_and_not_the_disk(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        log = await opened(journal)
        before = journal.disk_bytes
        woken = log.changed()
        log.wake()
        await woken
        assert journal.disk_bytes == before


@pytest.mark.asyncio
async def test_a_second_process_is_refused_and_told_which_setting(tmp_path: Path) -> None:
    async with journal_in(tmp_path):
        with pytest.raises(JournalError, match="TOKENWIRE_JOURNAL: another process") as caught:
            async with journal_in(tmp_path):
                raise AssertionError
        assert str(tmp_path) not in str(caught.value)
    async with journal_in(tmp_path):
        pass


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_is_refused_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"TOKENWIRE_JOURNAL: .*\((EEXIST|ENOTDIR)\)") as caught:
        async with journal_in(tmp_path / "file"):
            raise AssertionError
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.asyncio
async def test_nobody_else_may_read_what_is_written(tmp_path: Path) -> None:
    async with journal_in(tmp_path / "a" / "b") as (journal, _):
        await opened(journal)
    folder = tmp_path / "a" / "b"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.asyncio
async def test_a_run_that_cannot_be_written_disturbs_no_other(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, kept):
        bad, good = await opened(journal, "bad"), await opened(journal, "good")
        write(bad, [word()])
        bad.markers[-1] = object()  # type: ignore[call-overload]
        write(good, [word("fine")])
        bad.wake()
        await written(good)
        await written(bad)
        assert kept.failed == ["bad"]
        journal.forget("bad")
    async with journal_in(tmp_path) as (_, kept):
        assert list(kept.running) == ["good"]
        assert bytes(kept.log("good").channels[0].text).endswith(b"fine")
