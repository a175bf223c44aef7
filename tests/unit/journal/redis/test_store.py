"""What the journal needs of the shared store, held by the real server and by the model that the simulation runs on."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.model_server import ModelServer
from harness.model_store import ModelStore
from tokenwire.journal.redis.names import run_name
from tokenwire.journal.redis.redis_store import RedisStore
from tokenwire.journal.redis.store import (
    BEGINNING,
    CANCEL,
    RELEASED,
    WAKE,
    Message,
    NewRun,
    Outcome,
    Store,
    Verdict,
)
from unit.journal.redis.gateways import becomes
from unit.journal.redis.steps import CREATED_AT, LONG, REQUEST, frame, frames, lease, new


@pytest_asyncio.fixture(params=["redis", "model"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    one: Store
    if request.param == "redis":
        one = RedisStore(request.getfixturevalue("redis_server").url, f"test-{secrets.token_hex(4)}")
    else:
        one = ModelStore(ModelServer(asyncio.get_running_loop().time))
    await one.start()
    yield one
    await one.close()


@pytest.mark.asyncio
async def test_what_is_appended_is_read_in_its_order(store: Store) -> None:
    mine = lease()
    assert await store.create(new()) == Outcome(Verdict.DONE, 0)
    assert await store.append([frame(mine, 1, 3)]) == [Outcome(Verdict.DONE, 3)]
    assert await store.append([frame(mine, 4, 3), frame(mine, 4, 4)]) == [
        Outcome(Verdict.DONE, 3),
        Outcome(Verdict.DONE, 4),
    ]
    entries = await store.read(mine.name, BEGINNING)
    assert [(one.first, one.last, one.frame) for one in entries] == [
        (1, 3, b"1-3 by a"),
        (4, 3, b"4-3 by a"),
        (4, 4, b"4-4 by a"),
    ]
    assert await store.read(mine.name, entries[1].place) == entries[2:]
    stored = await store.load(mine.name)
    assert stored is not None
    assert (stored.record, stored.head, stored.lease, stored.takeovers) == (b"record of t:one", 4, mine, ())
    # Added to and taken from a clock: floats round.
    assert LONG - 60 < stored.lease_left <= LONG + 0.001


@pytest.mark.asyncio
async def test_a_frame_that_comes_twice_is_written_once_and_the_head_is_told(store: Store) -> None:
    mine = lease()
    await store.create(new())
    assert await store.append([frame(mine, 1, 3)]) == [Outcome(Verdict.DONE, 3)]
    assert await store.append([frame(mine, 1, 3)]) == [Outcome(Verdict.HEAD, 3)]
    assert await store.append([frame(mine, 1, 5)]) == [Outcome(Verdict.HEAD, 3)]
    assert await store.append([frame(mine, 7, 7)]) == [Outcome(Verdict.HEAD, 3)]
    assert await frames(store) == [(1, 3, 1)]


@pytest.mark.asyncio
async def test_a_writer_whose_run_was_taken_over_cannot_write(store: Store) -> None:
    old = lease()
    await store.create(new(seconds=0.0))
    await store.append([frame(old, 1, 2, seconds=0.0)])
    taken = await store.take(old.name, "b", LONG)
    assert taken is not None
    assert (taken.lease, taken.head, taken.takeovers) == (lease(owner="b", epoch=2), 2, ((2, 2),))
    fenced = Outcome(Verdict.FENCED, 2)
    assert await store.append([frame(old, 3, 3)]) == [fenced]
    assert await store.renew([old], LONG, LONG) == [fenced]
    assert await store.create(new()) == fenced
    await store.release([old])
    assert await store.append([frame(taken.lease, 3, 4)]) == [Outcome(Verdict.DONE, 4)]
    assert await frames(store) == [(1, 2, 1), (3, 4, 2)]


@pytest.mark.asyncio
async def test_a_lease_that_is_not_over_or_whose_run_has_ended_cannot_be_taken(store: Store) -> None:
    mine = lease()
    assert await store.take(mine.name, "b", LONG) is None, "there is no such run"
    await store.create(new())
    assert await store.take(mine.name, "b", LONG) is None
    again = await store.take(mine.name, "a", LONG)
    assert again is not None
    assert again.lease == mine, "its own, whose answer was lost"
    await store.append([frame(mine, 1, 1, end=True, seconds=0.0)])
    assert await store.take(mine.name, "b", LONG) is None


@pytest.mark.asyncio
async def test_of_several_that_take_a_run_one_has_it(store: Store) -> None:
    await store.create(new(seconds=0.0))
    taken = await asyncio.gather(*(store.take("t:one", f"gateway{place}", LONG) for place in range(8)))
    assert [one.lease.epoch for one in taken if one is not None] == [2]


@pytest.mark.asyncio
async def test_an_epoch_is_above_the_last_one_and_not_below_what_the_taker_wants(store: Store) -> None:
    await store.create(new(seconds=0.0))
    epochs = []
    for least in (0, 1_700_000_000, 5):
        taken = await store.take("t:one", f"gateway{least}", 0.0, least)
        assert taken is not None
        epochs.append(taken.lease.epoch)
    assert epochs == [2, 1_700_000_000, 1_700_000_001]


@pytest.mark.asyncio
async def test_what_is_released_can_be_taken_at_once_and_everybody_hears_of_it(store: Store) -> None:
    mine = lease()
    await store.create(new())
    first = await store.listen("b", {}, "", "", 0.01)
    await store.release([mine])
    heard = await store.listen("b", {}, first.own, first.shared, 10.0)
    assert heard.messages == [Message(RELEASED, mine.name)]
    assert await store.renew([mine], LONG, LONG) == [Outcome(Verdict.FENCED, 0)], "it comes too late"
    await store.release([mine])
    assert await store.expired(10) == [mine.name]
    assert await store.take(mine.name, "b", LONG) is not None
    assert await store.expired(10) == []
    nothing = await store.listen("b", {}, heard.own, heard.shared, 0.01)
    assert not nothing.messages


@pytest.mark.asyncio
async def test_an_expired_lease_is_seen_and_a_renewed_one_is_not(store: Store) -> None:
    one, other = lease("t:one"), lease("t:other")
    await store.create(new(one, seconds=0.0))
    await store.create(new(other, seconds=0.0))
    assert sorted(await store.expired(10)) == ["t:one", "t:other"]
    assert len(await store.expired(1)) == 1
    assert await store.renew([one], LONG, LONG) == [Outcome(Verdict.DONE, 0)]
    assert await store.expired(10) == ["t:other"]
    await store.finish("t:other", "", CREATED_AT, LONG)
    assert await store.expired(10) == []


@pytest.mark.asyncio
async def test_a_request_id_names_one_run_of_all_that_want_it(store: Store) -> None:
    answers = await asyncio.gather(*(store.claim("t", REQUEST, f"run{place}", "", 60.0) for place in range(8)))
    winner = answers[0][0]
    assert answers == [(winner, False)] * 8
    assert await store.resolve("t", REQUEST) == winner
    assert await store.resolve("other", REQUEST) == ""
    await store.create(new(lease(f"t:{winner}"), request=REQUEST))
    assert await store.claim("t", REQUEST, winner, "", 60.0) == (winner, True)
    assert await store.claim("t", REQUEST, "later", "no", 60.0) == (winner, True)
    assert await store.claim("t", REQUEST, "later", winner, 60.0) == ("later", False)


@pytest.mark.asyncio
async def test_a_claim_whose_run_never_came_to_be_does_not_block_for_ever(store: Store) -> None:
    assert await store.claim("t", REQUEST, "dead", "", 0.05) == ("dead", False)

    async def has_it() -> bool:
        return await store.claim("t", REQUEST, "next", "", 60.0) == ("next", False)

    await becomes(has_it)


@pytest.mark.asyncio
async def test_a_run_that_was_created_in_vain_leaves_nothing(store: Store) -> None:
    run = new(request=REQUEST)
    await store.claim("t", REQUEST, "one", "", 60.0)
    await store.create(run)
    await store.discard(run)
    assert await store.load("t:one") is None
    assert await store.resolve("t", REQUEST) == ""
    await store.create(run)
    await store.append([frame(lease(), 1, 1)])
    await store.discard(run)
    assert await store.load("t:one") is not None, "it has an event"


@pytest.mark.asyncio
async def test_an_end_makes_the_record_small_and_begins_the_retention(store: Store) -> None:
    mine = lease()
    await store.create(new(request=REQUEST))
    await store.append([frame(mine, 1, 2, end=True, keep=0.1)])
    stored = await store.load(mine.name)
    assert stored is not None
    assert (stored.ended_at, stored.record) == (1_700_000_001.5, b"small")
    assert await store.append([frame(mine, 3, 3)]) == [Outcome(Verdict.HEAD, 2)], "nothing follows the end"
    await store.finish(mine.name, REQUEST, CREATED_AT, 0.1)

    async def is_gone() -> bool:
        return not (await store.load(mine.name) or await store.resolve("t", REQUEST) or await store.known("t"))

    await becomes(is_gone)
    assert await frames(store) == []


@pytest.mark.asyncio
async def test_a_lost_run_is_missing_until_its_writer_writes_it_again(store: Store) -> None:
    later = lease(epoch=3)
    assert await store.append([frame(later, 8, 9)]) == [Outcome(Verdict.MISSING, 0)]
    assert await store.renew([later], LONG, LONG) == [Outcome(Verdict.MISSING, 0)]
    assert await store.create(new(later)) == Outcome(Verdict.DONE, 0)
    assert await store.append([frame(later, 1, 9)]) == [Outcome(Verdict.DONE, 9)]
    stored = await store.load(later.name)
    assert stored is not None
    assert stored.takeovers == ((2, 5), (3, 5))


@pytest.mark.asyncio
async def test_the_later_of_two_writers_replaces_an_older_state_that_came_back(store: Store) -> None:
    older, later = lease(owner="a", epoch=1), lease(owner="b", epoch=2)
    await store.create(new(older))
    await store.append([frame(older, 1, 4)])
    assert await store.append([frame(later, 9, 9)]) == [Outcome(Verdict.MISSING, 0)]
    assert await store.create(new(later)) == Outcome(Verdict.DONE, 0)
    assert await store.append([frame(later, 1, 9)]) == [Outcome(Verdict.DONE, 9)]
    assert await frames(store) == [(1, 9, 2)]
    assert await store.append([frame(older, 5, 5)]) == [Outcome(Verdict.FENCED, 9)]


@pytest.mark.asyncio
async def test_readers_are_known_until_they_leave_or_fall_silent(store: Store) -> None:
    await store.create(new(lease(owner="writer")))
    assert await store.attend(["t:one", "t:no"], "b", LONG) == [True, False]
    assert await store.attend(["t:one"], "c", 0.0) == [True]
    assert await store.attended("t:one", "writer")
    assert not await store.attended("t:one", "b"), "its own readers do not count, and c has fallen silent"
    await store.attend(["t:one"], "d", LONG)
    assert await store.leave("t:one", "b") == ""
    assert await store.leave("t:one", "d") == "writer"
    assert not await store.attended("t:one", "writer")
    assert await store.leave("t:no", "b") == ""


@pytest.mark.asyncio
async def test_a_cancel_is_told_to_the_writer_with_its_next_step(store: Store) -> None:
    mine = lease()
    assert await store.cancel(mine.name) is None
    await store.create(new())
    stored = await store.cancel(mine.name)
    assert stored is not None
    assert (stored.cancelled, stored.lease) == (True, mine)
    assert await store.append([frame(mine, 1, 1)]) == [Outcome(Verdict.DONE, 1, cancelled=True)]
    assert await store.renew([mine], LONG, LONG) == [Outcome(Verdict.DONE, 1, cancelled=True)]


@pytest.mark.asyncio
async def test_one_listener_hears_of_all_its_runs_and_of_its_messages(store: Store) -> None:
    one, other = lease("t:one"), lease("t:other")
    await store.create(new(one))
    await store.create(new(other))
    await store.append([frame(one, 1, 1), frame(other, 1, 1)])
    known = {name: (await store.read(name, BEGINNING))[-1].place for name in ("t:one", "t:other")}
    listening = asyncio.create_task(store.listen("me", known, "", "", 10.0))
    await store.append([frame(other, 2, 4)])
    heard = await listening
    assert {name: [entry.last for entry in entries] for name, entries in heard.entries.items()} == {"t:other": [4]}
    listening = asyncio.create_task(store.listen("me", {}, heard.own, heard.shared, 10.0))
    await store.post("me", Message(CANCEL, "t:one"))
    heard = await listening
    assert heard.messages == [Message(CANCEL, "t:one")]
    await store.post("me", Message(WAKE, ""))
    await store.post("another", Message(WAKE, ""))
    assert (await store.listen("me", {}, heard.own, heard.shared, 10.0)).messages == [Message(WAKE, "")]


@pytest.mark.asyncio
async def test_a_tenants_runs_are_known_newest_first(store: Store) -> None:
    for place, run_id in enumerate(["b", "c", "a"]):
        run = new(lease(run_name("ten ant:{x}", run_id)))
        await store.create(NewRun(**{name: getattr(run, name) for name in run.__slots__} | {"created_at": 1e9 + place}))
    assert await store.known("ten%20ant%3A%7Bx%7D") == ["a", "c", "b"]
    assert await store.known("x") == []


@pytest.mark.asyncio
async def test_an_incarnation_stays_and_grows_older(store: Store) -> None:
    first = await store.incarnation("one")
    assert first.id == "one"
    assert (await store.incarnation("two")).id == "one"
    assert 0 <= first.age < 10
    assert await store.uptime() >= 0
