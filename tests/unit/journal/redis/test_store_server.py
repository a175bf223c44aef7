"""The real store beside its model, and what only a real server can do: start anew, be full, be part of a cluster."""

import asyncio
import secrets
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from harness.model_server import ModelServer
from harness.model_store import ModelStore
from harness.redis_server import RedisServer, free_port
from harness.waiting import until
from tokenwire.journal.redis.redis_store import RedisStore
from tokenwire.journal.redis.store import (
    BEGINNING,
    Outcome,
    Store,
    StoreError,
    Verdict,
)
from unit.journal.redis.steps import CREATED_AT, LONG, REQUEST, frame, frames, lease, new

STEPS = some.one_of(
    some.tuples(some.just("create"), some.sampled_from("ab"), some.integers(1, 3), some.sampled_from([0.0, LONG])),
    some.tuples(
        some.just("append"), some.sampled_from("ab"), some.integers(1, 3), some.integers(1, 5), some.integers(0, 2)
    ),
    some.tuples(some.just("end"), some.sampled_from("ab"), some.integers(1, 3), some.integers(1, 5)),
    some.tuples(some.just("renew"), some.sampled_from("ab"), some.integers(1, 3), some.sampled_from([0.0, LONG])),
    some.tuples(some.just("take"), some.sampled_from("ab"), some.sampled_from([0.0, LONG])),
    some.tuples(some.just("release"), some.sampled_from("ab"), some.integers(1, 3)),
    some.tuples(some.just("discard"), some.sampled_from("ab"), some.integers(1, 3)),
    some.tuples(some.just("claim"), some.sampled_from(["one", "two"]), some.sampled_from(["", "one", "two"])),
    some.tuples(some.just("cancel")),
    some.tuples(some.just("attend"), some.sampled_from("ab"), some.sampled_from([0.0, LONG])),
    some.tuples(some.just("leave"), some.sampled_from("ab")),
    some.tuples(some.just("finish")),
)


async def take_step(store: Store, kind: str, *args: Any) -> Any:
    """Takes a step and returns what it answers, without the times."""
    match kind, args:
        case "create", (owner, epoch, seconds):
            return await store.create(new(lease(owner=owner, epoch=epoch), seconds=seconds, request=REQUEST))
        case "append", (owner, epoch, first, more):
            return await store.append([frame(lease(owner=owner, epoch=epoch), first, first + more - 1)])
        case "end", (owner, epoch, first):
            return await store.append([frame(lease(owner=owner, epoch=epoch), first, first, end=True)])
        case "renew", (owner, epoch, seconds):
            return await store.renew([lease(owner=owner, epoch=epoch)], seconds, LONG)
        case "take", (owner, seconds):
            taken = await store.take("t:one", owner, seconds)
            return taken and (taken.lease, taken.head, taken.takeovers, taken.cancelled)
        case "release", (owner, epoch):
            return await store.release([lease(owner=owner, epoch=epoch)])
        case "discard", (owner, epoch):
            return await store.discard(new(lease(owner=owner, epoch=epoch), request=REQUEST))
        case "claim", (run_id, replaces):
            return await store.claim("t", REQUEST, run_id, replaces, LONG)
        case "cancel", ():
            stored = await store.cancel("t:one")
            return stored and stored.lease
        case "attend", (gateway, seconds):
            return await store.attend(["t:one"], gateway, seconds)
        case "leave", (gateway,):
            return await store.leave("t:one", gateway)
        case "finish", ():
            return await store.finish("t:one", REQUEST, CREATED_AT, LONG)
    raise AssertionError(kind)


async def state(store: Store) -> Any:
    """Returns all that can be seen, without the times."""
    stored = await store.load("t:one")
    seen = stored and (stored.record, stored.lease, stored.lease_left > 0, stored.head, stored.takeovers)
    more = stored and (stored.ended_at, stored.cancelled)
    readers = [await store.attended("t:one", gateway) for gateway in "abc"]
    rest = (await store.expired(9), await store.resolve("t", REQUEST), await store.known("t"))
    return seen, more, await store.read("t:one", BEGINNING), readers, rest


@given(steps=some.lists(STEPS, max_size=25))
@settings(max_examples=120)
def test_the_model_answers_as_the_real_store_does(redis_server: RedisServer, steps: list[tuple[Any, ...]]) -> None:
    async def compare() -> None:
        model = ModelStore(ModelServer(asyncio.get_running_loop().time))
        real = RedisStore(redis_server.url, f"test-{secrets.token_hex(4)}")
        try:
            for step in steps:
                assert await take_step(model, *step) == await take_step(real, *step), step
                assert await state(model) == await state(real), step
        finally:
            await real.close()

    asyncio.run(compare())


@pytest.mark.asyncio
async def test_a_server_without_memory_refuses_without_harm(own_server: RedisServer) -> None:
    store = RedisStore(own_server.url)
    mine = lease()
    await store.create(new())
    await store.append([frame(mine, 1, 2)])
    own_server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreError, match="out of memory"):
        await store.append([frame(mine, 3, 3)])
    with pytest.raises(StoreError, match="out of memory"):
        await store.create(new(lease(epoch=2)))
    own_server.ask("CONFIG", "SET", "maxmemory", "0")
    assert await frames(store) == [(1, 2, 1)]
    assert await store.append([frame(mine, 3, 3)]) == [Outcome(Verdict.DONE, 3)]
    await store.close()


@pytest.mark.asyncio
async def test_a_server_that_was_started_anew_is_used_at_once(durable_server: RedisServer) -> None:
    store = RedisStore(durable_server.url)
    mine = lease()
    await store.create(new())
    await store.append([frame(mine, 1, 2)])
    durable_server.kill()
    with pytest.raises(StoreError):
        await store.append([frame(mine, 3, 3)])
    durable_server.start()
    assert await store.append([frame(mine, 3, 3)]) == [Outcome(Verdict.DONE, 3)]
    assert await frames(store) == [(1, 2, 1), (3, 3, 1)]
    await store.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [2, 3, 4])
async def test_a_run_whose_events_are_gone_is_missing_whatever_follows(redis_server: RedisServer, first: int) -> None:
    store = RedisStore(redis_server.url, f"test-{secrets.token_hex(4)}")
    mine = lease()
    await store.create(new())
    await store.append([frame(mine, 1, 2)])
    await store._client.one("DEL", store._run_keys(mine.name)[1])
    assert await store.append([frame(mine, first, 5)]) == [Outcome(Verdict.MISSING, 0)]
    assert await store.renew([mine], LONG, LONG) == [Outcome(Verdict.MISSING, 0)]
    assert await frames(store) == []
    await store.close()


@pytest.mark.asyncio
async def test_every_script_keeps_to_the_keys_of_one_slot(redis_server: RedisServer) -> None:
    with_cluster = RedisServer(redis_server._program, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with_cluster.start()
    try:
        with_cluster.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: b"cluster_state:ok" in with_cluster.ask("CLUSTER", "INFO"), "the cluster is up")
        store = RedisStore(with_cluster.url)
        mine = lease()
        await store.claim("t", REQUEST, "one", "", 60.0)
        await store.create(new(request=REQUEST))
        await store.append([frame(mine, 1, 2)])
        await store.attend([mine.name], "b", LONG)
        await store.leave(mine.name, "b")
        await store.release([mine])
        assert await store.take(mine.name, "b", LONG) is not None
        await store.append([frame(lease(owner="b", epoch=2), 3, 3, end=True)])
        await store.finish(mine.name, REQUEST, CREATED_AT, LONG)
        assert await frames(store) == [(1, 2, 1), (3, 3, 2)]
        await store.close()
    finally:
        with_cluster.close()
