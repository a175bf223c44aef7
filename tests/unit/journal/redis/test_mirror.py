"""A copy of a run follows its log, whatever becomes of the store: no gap, nothing twice, nothing that was lost."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.model_server import ModelServer
from harness.model_store import ModelStore
from tokenwire.domain.cursor import Channel
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import DamagedError, RunRecord
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.mirror import Mirror
from tokenwire.journal.redis.writing import Writing

RECORD = RunRecord(
    run_id="one",
    tenant="t",
    model="m",
    submission=Submission(prompt="hi"),
    prompt=Prompt(text="hi"),
    share=8192,
    grace=None,
    created_at=1.0,
    max_duration=60.0,
    retention=60.0,
)
CODEC = Codec()


async def keep(store: ModelStore, writing: Writing) -> None:
    """Brings the store up to date, as the appender does."""
    while writing.pending:
        if not writing.created:
            writing.written((await store.create(writing.new_run(CODEC, 3600.0))).head)
            writing.created = True
        (outcome,) = await store.append([writing.append(CODEC, 3600.0, 1.0)])
        if outcome.verdict.name == "MISSING":
            writing.missing()
        else:
            writing.written(outcome.head)


async def follow(store: ModelStore, mirror: Mirror) -> None:
    """Reads what is new, as the tailer does."""
    if not mirror.feed(await store.read(mirror.name, mirror.place)):
        stored = await store.load(mirror.name)
        if stored is not None:
            await mirror.read_again(store, stored)


def text(log: RunLog) -> bytes:
    found = log.channel(Channel())
    return bytes(found.text) if found else b""


STEPS = some.lists(some.sampled_from(["write", "write", "keep", "follow", "lose", "cut"]), max_size=40)


@given(STEPS)
def test_a_mirror_is_always_a_beginning_of_the_writers_log(steps: list[str]) -> None:
    async def play() -> None:
        server = ModelServer(asyncio.get_running_loop().time)
        store = ModelStore(server)
        log = RunLog(epoch=1)
        writing = Writing(RECORD, log, "a", 1, created=False)
        log.sink_into(lambda log: None)
        mirror = Mirror(writing.name, RECORD, 1, CODEC)
        number = 0
        for step in (*steps, "write", "keep", "follow"):
            if step == "write":
                number += 1
                log.append_text(Channel(), f"{number} ", number)
            elif step == "keep":
                await keep(store, writing)
            elif step == "follow":
                await follow(store, mirror)
            elif step == "lose":
                server.lose()
            elif (run := server.run(writing.name)) is not None and run.log:
                # An older state comes back.
                del run.log[len(run.log) // 2 :]
                run.head = run.log[-1].last if run.log else 0
            assert text(log).startswith(text(mirror.log))
            assert mirror.log.committed == mirror.log.head
        assert text(mirror.log) == text(log)
        assert mirror.log.head == log.head

    asyncio.run(play())


@pytest.mark.asyncio
async def test_a_copy_that_is_ahead_of_where_another_writer_went_on_is_refused() -> None:
    server = ModelServer(asyncio.get_running_loop().time)
    store = ModelStore(server)
    log = RunLog(epoch=1)
    log.sink_into(lambda log: None)
    writing = Writing(RECORD, log, "a", 1, created=False)
    mirror = Mirror(writing.name, RECORD, 1, CODEC)
    for number in range(6):
        log.append_text(Channel(), f"{number} ", number)
        await keep(store, writing)
    await follow(store, mirror)
    # The store comes back without the last three, and without the writer.
    run = server.run(writing.name)
    assert run is not None
    del run.log[3:]
    run.head, run.lease_until = 3, 0.0
    taken = await store.take(writing.name, "b", 3600.0)
    assert taken is not None
    other = Mirror(writing.name, RECORD, 2, CODEC)
    await other.catch_up(store, taken)
    assert (other.log.head, other.log.takeovers) == (3, [(2, 3)])
    again = Writing(RECORD, other.log, "b", 2, created=True)
    for number in range(6):
        other.log.append_text(Channel(), f"otherwise {number} ", number)
    await keep(store, again)
    with pytest.raises(DamagedError):
        await follow(store, mirror)
    assert text(mirror.log) == b"0 1 2 3 4 5 "


@pytest.mark.asyncio
async def test_another_writer_s_text_is_not_joined_to_what_was_lost_because_its_number_fits() -> None:
    server = ModelServer(asyncio.get_running_loop().time)
    store = ModelStore(server)
    log = RunLog(epoch=1)
    log.sink_into(lambda log: None)
    writing = Writing(RECORD, log, "a", 1, created=False)
    mirror = Mirror(writing.name, RECORD, 1, CODEC)
    for number in range(4):
        log.append_text(Channel(), f"{number} ", number)
        await keep(store, writing)
    await follow(store, mirror)
    # The last event is lost with its writer; another one writes in its place, and one more.
    run = server.run(writing.name)
    assert run is not None
    del run.log[3:]
    run.head, run.lease_until = 3, 0.0
    taken = await store.take(writing.name, "b", 3600.0)
    assert taken is not None
    other = Mirror(writing.name, RECORD, 2, CODEC)
    await other.catch_up(store, taken)
    again = Writing(RECORD, other.log, "b", 2, created=True)
    for _ in range(2):
        # As long as what was lost: its place in the text fits as well.
        other.log.append_text(Channel(), "x ", 9)
        await keep(store, again)
    with pytest.raises(DamagedError):
        await follow(store, mirror)
    assert text(mirror.log) == b"0 1 2 3 "
