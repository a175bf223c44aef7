"""How often the file is written to: in virtual time, with a tape that only counts."""

import asyncio
from typing import Any, cast

import pytest

from harness.clock import JumpingLoop
from harness.records import record
from tokenwire.domain.cursor import Channel
from tokenwire.journal.file.commit import GATHER_SECONDS, GroupCommit
from tokenwire.journal.file.held import HeldRun
from tokenwire.journal.log import RunLog


class Tape:
    """Takes every write at once."""

    def __init__(self) -> None:
        self.busy = False
        self.writes: list[float] = []

    def write(self, ops: list[Any], done: Any) -> None:
        self.writes.append(asyncio.get_running_loop().time())
        done(Segment(), None)

    def release(self) -> None:
        pass

    @property
    def crowd(self) -> tuple[Any, int]:
        return Segment(), 0


class Segment:
    number = 1
    runs = 0


class NoOutage:
    lasts = False

    def over(self) -> None:
        pass


def append(log: RunLog) -> None:
    log.append_text(Channel(), "a", 1, (7,), 1)
    log.wake()


@pytest.mark.asyncio
async def test_a_write_comes_at_once_after_a_pause_and_gathers_a_millisecond_after_another() -> None:
    assert isinstance(asyncio.get_running_loop(), JumpingLoop)
    tape, commit = Tape(), GroupCommit(cast("Any", NoOutage()), lambda: 1, lambda _: None)
    commit.tape = cast("Any", tape)
    run = HeldRun(1, record("r"), RunLog(epoch=1))
    commit.add(run)
    for _ in range(3):
        append(run.log)
        await run.log.changed()
    for _ in range(10):
        append(run.log)
        await asyncio.sleep(GATHER_SECONDS / 5)
    await asyncio.sleep(1)
    append(run.log)
    now = asyncio.get_running_loop().time()
    await run.log.changed()
    assert run.log.committed == 14
    assert tape.writes[-1] == now
    # Something was appended fourteen times.
    assert tape.writes == pytest.approx([0.0, 0.001, 0.002, 0.003, 0.004, 1.004])
