"""After a crash at any byte, and after any damage, nothing is there that was not written."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records import record
from harness.run_events import Written, contents, run_events, write
from tokenwire.domain.events import End, Timings, Usage
from tokenwire.journal.file.disk import Disk
from tokenwire.journal.log import RunLog
from unit.journal.file.kept import NOW, KeptRuns, journal_in, segments


class QuickDisk(Disk):
    """Does not wait for the real one."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


@dataclass
class History:
    """What was written in some turns: how many bytes there were after each, and the heads that were seen by then."""

    logs: list[RunLog] = field(default_factory=list)
    turns: list[tuple[int, list[int]]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def stream(self) -> int:
        return sum(len(data) for _, data in self.files)

    def cut(self, folder: Path, at: int) -> None:
        """Writes what there is after so many bytes."""
        for name, data in self.files:
            if at > 0:
                (folder / name).write_bytes(data[:at])
            at -= len(data)


END = End(choices=(), usage=Usage(), timings=Timings(), channels=())
_runs = st.lists(run_events(max_size=8), min_size=1, max_size=3)


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


async def play(runs: list[list[Written]], steps: list[list[int]], **settings: Any) -> History:
    """Writes runs; each step is a turn, and says how many events each run gets in it."""
    history = History()
    with folder() as path:
        async with journal_in(path, disk=QuickDisk(), fsync="never", **settings) as (journal, _):
            logs = [await journal.open(record(f"{number}", created_at=NOW)) for number in range(len(runs))]
            history.logs = logs
            left = [list(events) for events in runs]
            for step in [*steps, [100] * len(runs)]:
                for number, (log, count) in enumerate(zip(logs, step, strict=False)):
                    write(log, left[number][:count])
                    del left[number][:count]
                    log.wake()
                while journal._commit._scheduled:  # noqa: ASYNC110 - it is the end of a turn, and nobody is told
                    await asyncio.sleep(0)
                assert all(log.committed == log.head for log in logs)
                history.turns.append((journal.disk_bytes, [log.committed for log in logs]))
            history.files = [(one.name, one.read_bytes()) for one in segments(path)]
    return history


async def found(path: Path, **settings: Any) -> tuple[dict[str, RunLog], KeptRuns]:
    async with journal_in(path, disk=QuickDisk(), fsync="never", **settings) as (_, kept):
        return {run_id: kept.log(run_id) for run_id in (*kept.finished, *kept.running)}, kept


def is_prefix(log: RunLog, whole: RunLog) -> bool:
    return contents(log) == contents(whole, log.head)


_steps = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=6)


@settings(max_examples=60)
@given(_runs, _steps, st.data())
def test_a_crash_at_any_byte_leaves_a_prefix_of_every_run_and_all_that_was_seen(
    runs: list[list[Written]], steps: list[list[int]], data: st.DataObject
) -> None:
    async def scenario() -> None:
        history = await play(runs, steps, segment_bytes=600)
        for _ in range(3):
            at = data.draw(st.integers(0, history.stream))
            seen = next((heads for size, heads in reversed(history.turns) if size <= at), [])
            with folder() as path:
                history.cut(path, at)
                logs, kept = await found(path)
                for number, head in enumerate(seen):
                    assert logs[f"{number}"].head >= head
                for run_id, log in logs.items():
                    whole = history.logs[int(run_id)]
                    assert is_prefix(log, whole)
                    assert log.committed == log.head
                    assert (run_id in kept.finished) == log.closed
                # What was found is found again.
                again, _ = await found(path)
                assert {one: contents(log) for one, log in again.items()} == {
                    one: contents(log) for one, log in logs.items()
                }

    asyncio.run(scenario())


@settings(max_examples=60)
@given(_runs, _steps, st.data())
def test_damage_anywhere_leaves_good_prefixes_and_ends_runs_that_miss_something(
    runs: list[list[Written]], steps: list[list[int]], data: st.DataObject
) -> None:
    async def scenario() -> None:
        history = await play(runs, steps, segment_bytes=600)
        with folder() as path:
            history.cut(path, history.stream)
            for _ in range(data.draw(st.integers(1, 3))):
                one = data.draw(st.sampled_from(segments(path)))
                content = bytearray(one.read_bytes())
                if not content:
                    continue
                at = data.draw(st.integers(0, len(content) - 1))
                kind = data.draw(st.sampled_from(["flipped", "zeros", "left out", "twice"]))
                size = data.draw(st.integers(1, 40))
                if kind == "flipped":
                    content[at] ^= data.draw(st.integers(1, 255))
                elif kind == "zeros":
                    content[at : at + size] = bytes(len(content[at : at + size]))
                elif kind == "left out":
                    del content[at : at + size]
                else:
                    content[at:at] = content[at : at + size]
                one.write_bytes(content)
            logs, kept = await found(path)
            assert set(logs) <= {f"{number}" for number in range(len(runs))}
            for run_id, log in logs.items():
                whole = history.logs[int(run_id)]
                end = log.end
                if end is not None and end.error is not None and end.error.reason == "JOURNAL_DAMAGED":
                    assert contents(log, log.head - 1) == contents(whole, log.head - 1)
                    assert run_id in kept.finished
                    # Whoever has read more than is left is told so.
                    assert (log.epoch or 0) > 1
                    assert log.takeovers[-1] == (log.epoch, log.head - 1)
                else:
                    assert is_prefix(log, whole)
            again, _ = await found(path)
            assert {one: contents(log) for one, log in again.items()} == {
                one: contents(log) for one, log in logs.items()
            }

    asyncio.run(scenario())


def test_a_run_that_lost_events_in_the_middle_ends_as_damaged_and_others_go_on() -> None:
    async def scenario() -> None:
        start, word = run_story()
        runs = [[start, *[word] * 5], [start, *[word] * 5]]
        # In each turn one of them writes.
        steps = [[6 * (number == run) and 1 for run in range(2)] for number in (0, 1) * 5]
        history = await play(runs, steps, segment_bytes=100_000)
        with folder() as path:
            history.cut(path, history.stream)
            (one,) = segments(path)
            content = bytearray(one.read_bytes())
            # The third turn was the first run's second event.
            content[history.turns[2][0] - 1] ^= 1
            one.write_bytes(content)
            _, kept = await found(path)
            assert (list(kept.finished), list(kept.running)) == (["0"], ["1"])
            end = kept.log("0").end
            assert isinstance(end, End)
            assert end.error is not None
            assert (end.error.reason, end.error.code.name, end.error.retryable) == (
                "JOURNAL_DAMAGED",
                "DATA_LOSS",
                True,
            )
            assert kept.log("0").head == 2
            assert contents(kept.log("1")) == contents(history.logs[1])
            assert kept.finished["0"].ended_at == NOW

    asyncio.run(scenario())


def test_a_run_whose_end_was_lost_is_not_taken_for_one_that_goes_on() -> None:
    async def scenario() -> None:
        start, word = run_story()
        with folder() as path, folder() as other:
            async with journal_in(path, disk=QuickDisk(), fsync="never") as (journal, _):
                log = await journal.open(record(created_at=NOW))
                sizes = []
                for event in (start, word, END):
                    write(log, [event])
                    log.wake()
                    await log.changed()
                    sizes.append(journal.disk_bytes)
                journal.settle("run", NOW)
            (one,) = segments(path)
            content = bytearray(one.read_bytes())
            content[sizes[2] - 1] ^= 1
            (other / one.name).write_bytes(content)
            logs, kept = await found(other)
            assert list(kept.finished) == ["run"]
            assert logs["run"].head == 3
            end = logs["run"].end
            assert end is not None
            assert end.error is not None
            assert end.error.reason == "JOURNAL_DAMAGED"

    asyncio.run(scenario())


def run_story() -> tuple[Written, Written]:
    from harness.run_events import CHANNELS, START, Text

    return START, Text(CHANNELS[0], " word", 1, (7,), ())


def test_a_torn_tail_is_cut() -> None:
    async def scenario() -> None:
        start, word = run_story()
        history = await play([[start, *[word] * 5]], [[1]] * 5, segment_bytes=100_000)
        with folder() as path:
            history.cut(path, history.stream - 1)
            first = segments(path)[0]
            await found(path)
            assert first.stat().st_size == history.turns[-2][0]

    asyncio.run(scenario())


def test_epochs_count_on_even_if_it_was_lost_who_took_a_run_over() -> None:
    async def scenario() -> None:
        start, word = run_story()
        history = await play([[start, word]], [], segment_bytes=100_000)
        with folder() as path:
            history.cut(path, history.stream)
            for _ in range(3):
                logs, _ = await found(path)
            assert logs["0"].epoch == 4
            # Its fourth writer is known from the last segment alone.
            last = segments(path)[-1]
            last.write_bytes(bytes(len(last.read_bytes())))
            logs, _ = await found(path)
            assert (logs["0"].epoch or 0) > 4

    asyncio.run(scenario())
