"""The shared store as a model in memory: the same semantics as Redis, on any clock, with faults on demand.

One ModelServer stands for the server, and one ModelStore for each gateway's connection to it. The contract tests hold
it to what the real one does (tests/unit/journal/redis/test_store.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from harness.model_server import Claim, ModelServer, StoredRun
from tokenwire.journal.redis.names import parts
from tokenwire.journal.redis.store import (
    BEGINNING,
    RELEASED,
    Append,
    Entry,
    Heard,
    Incarnation,
    Lease,
    Message,
    NewRun,
    Outcome,
    Stored,
    StoreError,
    Verdict,
)


async def _at_once(step: str) -> None:
    """No network between a gateway and the server."""
    await asyncio.sleep(0)


class ModelStore:
    """One gateway's connection; see Store.

    Args:
        server: what it leads to.
        request: is awaited with a step's name before the step is done: it may take its time, or raise StoreError.
        reply: likewise after it was done.
    """

    def __init__(
        self,
        server: ModelServer,
        request: Callable[[str], Awaitable[None]] = _at_once,
        reply: Callable[[str], Awaitable[None]] = _at_once,
    ) -> None:
        self._server = server
        self._request = request
        self._reply = reply

    async def start(self) -> None:
        """See Store."""

    async def incarnation(self, proposed: str) -> Incarnation:
        """See Store."""
        server = await self._arrive("incarnation")
        if server.incarnation is None:
            server.incarnation = (proposed, server.now())
        name, since = server.incarnation
        await self._reply("incarnation")
        return Incarnation(id=name, age=server.now() - since)

    async def uptime(self) -> float:
        """See Store."""
        server = await self._arrive("uptime")
        return server.now() - server.started_at

    async def claim(self, tenant: str, request: str, run_id: str, replaces: str, seconds: float) -> tuple[str, bool]:
        """See Store."""
        server = await self._arrive("claim")
        held = self._claimed(tenant, request)
        if held is None or (held.run_id in (run_id, replaces) and not (held.run_id == run_id and held.created)):
            held = server.claims[tenant, request] = Claim(run_id, server.now() + seconds, created=False)
        answer = held.run_id, held.created
        await self._reply("claim")
        return answer

    async def resolve(self, tenant: str, request: str) -> str:
        """See Store."""
        await self._arrive("resolve")
        held = self._claimed(tenant, request)
        await self._reply("resolve")
        return held.run_id if held else ""

    async def create(self, run: NewRun) -> Outcome:
        """See Store."""
        server = await self._arrive("create")
        now, lease = server.now(), run.lease
        tenant, run_id = parts(lease.name)
        server.live[lease.name] = now + run.lease_seconds
        outcome = self._create(run, now)
        server.index.setdefault(tenant, {})[run_id] = (run.created_at, now + run.keep_seconds)
        held = self._claimed(tenant, run.request) if run.request else None
        if run.request and (held is None or held.run_id == run_id):
            server.claims[tenant, run.request] = Claim(run_id, now + run.keep_seconds, created=True)
        await self._reply("create")
        return outcome

    async def discard(self, run: NewRun) -> None:
        """See Store."""
        server = await self._arrive("discard")
        held = server.run(run.lease.name)
        if held is not None and (held.owner, held.epoch, held.head) == (run.lease.owner, run.lease.epoch, 0):
            del server.runs[run.lease.name]
            held = None
        tenant, run_id = parts(run.lease.name)
        claimed = self._claimed(tenant, run.request)
        if held is None and claimed is not None and claimed.run_id == run_id:
            del server.claims[tenant, run.request]
        await self._reply("discard")

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """See Store."""
        server = await self._arrive("append")
        outcomes = [self._append(one) for one in batch]
        server.changed()
        await self._reply("append")
        return outcomes

    async def finish(self, name: str, request: str, created_at: float, keep_seconds: float) -> None:
        """See Store."""
        server = await self._arrive("finish")
        tenant, run_id = parts(name)
        server.live.pop(name, None)
        server.index.setdefault(tenant, {})[run_id] = (created_at, server.now() + keep_seconds)
        held = self._claimed(tenant, request)
        if held is not None and held.run_id == run_id:
            server.claims[tenant, request] = Claim(run_id, server.now() + keep_seconds, created=True)
        await self._reply("finish")

    async def renew(self, leases: Sequence[Lease], lease_seconds: float, keep_seconds: float) -> list[Outcome]:
        """See Store."""
        if not leases:
            return []
        server = await self._arrive("renew")
        outcomes = []
        for lease in leases:
            run = server.run(lease.name)
            refused = _fence(run, lease)
            if refused is None:
                assert run is not None
                server.live[lease.name] = server.now() + lease_seconds
                if run.ended_at is None:
                    run.lease_until, run.keep_until = server.now() + lease_seconds, server.now() + keep_seconds
                refused = Outcome(Verdict.DONE, run.head, run.cancelled)
            outcomes.append(refused)
        await self._reply("renew")
        return outcomes

    async def expired(self, most: int) -> list[str]:
        """See Store."""
        server = await self._arrive("expired")
        found = sorted((until, name) for name, until in server.live.items() if until <= server.now())
        await self._reply("expired")
        return [name for _, name in found[:most]]

    async def take(self, name: str, owner: str, lease_seconds: float, least_epoch: int = 0) -> Stored | None:
        """See Store."""
        server = await self._arrive("take")
        run, now, answer = server.run(name), server.now(), None
        if run is None or run.ended_at is not None:
            server.live.pop(name, None)
        else:
            server.live[name] = now + lease_seconds
            if run.lease_until <= now:
                run.epoch = max(run.epoch + 1, least_epoch)
                run.owner, run.lease_until = owner, now + lease_seconds
                run.takeovers = (*run.takeovers, (run.epoch, run.head))
                answer = self._stored(name, run)
            elif run.owner == owner:
                answer = self._stored(name, run)
        await self._reply("take")
        return answer

    async def release(self, leases: Sequence[Lease]) -> None:
        """See Store."""
        if not leases:
            return
        server = await self._arrive("release")
        for lease in leases:
            run = server.run(lease.name)
            if run is not None and (run.owner, run.epoch) == (lease.owner, lease.epoch):
                run.lease_until = server.live[lease.name] = 0.0
                run.owner = ""
                server.released.append(Message(RELEASED, lease.name))
        server.changed()
        await self._reply("release")

    async def load(self, name: str) -> Stored | None:
        """See Store."""
        server = await self._arrive("load")
        run = server.run(name)
        answer = None if run is None else self._stored(name, run)
        await self._reply("load")
        return answer

    async def read(self, name: str, after: str) -> list[Entry]:
        """See Store."""
        server = await self._arrive("read")
        answer = _after(server.run(name), after)
        await self._reply("read")
        return answer

    async def known(self, tenant: str) -> list[str]:
        """See Store."""
        server = await self._arrive("known")
        alive = [(at, run_id) for run_id, (at, until) in server.index.get(tenant, {}).items() if until > server.now()]
        await self._reply("known")
        return [run_id for _, run_id in sorted(alive, reverse=True)]

    async def cancel(self, name: str) -> Stored | None:
        """See Store."""
        server = await self._arrive("cancel")
        run, answer = server.run(name), None
        if run is not None:
            run.cancelled = True
            answer = self._stored(name, run)
        await self._reply("cancel")
        return answer

    async def attend(self, names: Sequence[str], gateway: str, seconds: float) -> list[bool]:
        """See Store."""
        server = await self._arrive("attend")
        answer = []
        for name in names:
            run = server.run(name)
            if run is not None:
                run.readers[gateway] = server.now() + seconds
            answer.append(run is not None)
        await self._reply("attend")
        return answer

    async def leave(self, name: str, gateway: str) -> str:
        """See Store."""
        server = await self._arrive("leave")
        run, answer = server.run(name), ""
        if run is not None:
            run.readers.pop(gateway, None)
            answer = "" if any(until > server.now() for until in run.readers.values()) else run.owner
        await self._reply("leave")
        return answer

    async def attended(self, name: str, gateway: str) -> bool:
        """See Store."""
        server = await self._arrive("attended")
        run = server.run(name)
        readers = run.readers.items() if run is not None else ()
        answer = any(one != gateway and until > server.now() for one, until in readers)
        await self._reply("attended")
        return answer

    async def post(self, gateway: str, message: Message) -> None:
        """See Store."""
        server = await self._arrive("post")
        server.inboxes.setdefault(gateway, []).append(message)
        server.changed()
        await self._reply("post")

    async def listen(self, gateway: str, places: Mapping[str, str], own: str, shared: str, seconds: float) -> Heard:
        """See Store."""
        server = await self._arrive("listen")
        shared = shared or f"{len(server.released)}"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            if not server.up:
                raise StoreError("the connection is lost")
            found = {name: _after(server.run(name), place) for name, place in places.items()}
            inbox, heard = server.inboxes.get(gateway, []), server.released
            # A server that has lost everything counts anew.
            mine, all_ = min(int(own or 0), len(inbox)), min(int(shared), len(heard))
            if any(found.values()) or inbox[mine:] or heard[all_:] or loop.time() >= deadline:
                break
            await server.change(deadline - loop.time())
        answer = Heard(
            entries={name: entries for name, entries in found.items() if entries},
            messages=[*inbox[mine:], *heard[all_:]],
            own=str(len(inbox)),
            shared=str(len(heard)),
        )
        await self._reply("listen")
        return answer

    async def close(self) -> None:
        """See Store."""

    async def _arrive(self, step: str) -> ModelServer:
        await self._request(step)
        if not self._server.up:
            raise StoreError("the server is down")
        return self._server

    def _claimed(self, tenant: str, request: str) -> Claim | None:
        held = self._server.claims.get((tenant, request))
        return held if held is not None and held.until > self._server.now() else None

    def _stored(self, name: str, run: StoredRun) -> Stored:
        return Stored(
            record=run.record,
            lease=Lease(name=name, owner=run.owner, epoch=run.epoch),
            lease_left=run.lease_until - self._server.now(),
            head=run.head,
            takeovers=run.takeovers,
            ended_at=run.ended_at,
            cancelled=run.cancelled,
        )

    def _create(self, new: NewRun, now: float) -> Outcome:
        lease, held = new.lease, self._server.run(new.lease.name)
        if held is not None:
            refused = _fence(held, lease)
            if refused is None or refused.verdict is Verdict.FENCED:
                return refused or Outcome(Verdict.DONE, held.head, held.cancelled)
        self._server.runs[lease.name] = StoredRun(
            record=new.record,
            owner=lease.owner,
            epoch=lease.epoch,
            takeovers=new.takeovers,
            lease_until=now + new.lease_seconds,
            keep_until=now + new.keep_seconds,
            cancelled=held is not None and held.cancelled,
            readers=held.readers if held is not None else {},
        )
        return Outcome(Verdict.DONE, 0, self._server.runs[lease.name].cancelled)

    def _append(self, one: Append) -> Outcome:
        run = self._server.run(one.lease.name)
        refused = _fence(run, one.lease)
        if refused is not None:
            return refused
        assert run is not None
        if run.head != one.first - 1 or run.ended_at is not None:
            return Outcome(Verdict.HEAD, run.head, run.cancelled)
        now = self._server.now()
        again = sum(entry.last == one.last for entry in run.log)
        place = f"{one.last}-{again + (one.last == 0)}"
        run.log.append(Entry(place=place, first=one.first, last=one.last, epoch=one.lease.epoch, frame=one.frame))
        if run.head == 0:
            run.keep_until = now + one.keep_seconds
        run.head, run.lease_until = one.last, now + one.lease_seconds
        if one.ending is not None:
            run.ended_at, run.record = one.ending.at, one.ending.record
            run.keep_until = now + one.ending.keep_seconds
        return Outcome(Verdict.DONE, run.head, run.cancelled)


def _fence(run: StoredRun | None, lease: Lease) -> Outcome | None:
    if run is None:
        return Outcome(Verdict.MISSING, 0)
    if run.epoch > lease.epoch or (run.epoch == lease.epoch and run.owner != lease.owner):
        return Outcome(Verdict.FENCED, run.head, run.cancelled)
    if run.epoch < lease.epoch or (run.head > 0 and not run.log):
        return Outcome(Verdict.MISSING, 0, run.cancelled)
    return None


def _after(run: StoredRun | None, place: str) -> list[Entry]:
    if run is None:
        return []
    return [replace(entry) for entry in run.log if _sortable(entry.place) > _sortable(place or BEGINNING)]


def _sortable(place: str) -> tuple[int, int]:
    last, _, again = place.partition("-")
    return int(last), int(again)
