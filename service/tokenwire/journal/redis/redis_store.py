"""The shared store in Redis 7 or later, or Valkey.

All keys of a run share a hash tag. Keys, after the prefix:

    {tenant:run}:run     hash: record, owner, epoch, lease_until (milliseconds), head, takeovers, ended_at, cancelled
    {tenant:run}:log     stream of frames: n first event, e epoch, f frame; an entry's place is its last event's number
    {tenant:run}:readers sorted set: gateways that have readers, by when they say so no more
    request:tenant:id    the run that a request id names; with '?' before it: the run is not there yet
    runs:tenant          sorted set: a tenant's runs, by when they are forgotten
    live                 sorted set: runs without an end, by when somebody should look after them; a hint, no more
    inbox:gateway        stream: messages to a gateway
    released             stream: runs that anybody may take over
    incarnation          hash: id, since
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog

from tokenwire.journal.journal import JournalError
from tokenwire.journal.redis import scripts
from tokenwire.journal.redis.address import Address
from tokenwire.journal.redis.client import Client, call
from tokenwire.journal.redis.names import parts
from tokenwire.journal.redis.replies import appended, entries, outcome, position, stored, takeovers_text
from tokenwire.journal.redis.resp import Command, beginning, words
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

_log = structlog.get_logger()

# Messages that wait for a gateway which does not listen; it hears of cancels all the same, with its next append.
INBOX_MESSAGES = 1000
INBOX_SECONDS = 3600
# Entries of one run that are read at once.
PAGE = 500
# Runs whose part of a command that does not change is kept.
FRONTS = 4096


class RedisStore:
    """See Store.

    Args:
        url: of the server.
        prefix: of all keys.
        reply_seconds: how long an answer may take.
        username: at the server; empty: the default user.
        password: at the server; empty: none.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "tokenwire",
        *,
        reply_seconds: float = 1.0,
        username: str = "",
        password: str = "",
    ) -> None:
        self._address = Address(url, username=username, password=password)
        self._client = Client(self._address, reply_seconds)
        # What is written for every token waits for nothing else, such as a page that a reader asks for.
        self._writer = Client(self._address, reply_seconds)
        self._reply_seconds = reply_seconds
        self._listener: Client | None = None
        self._prefix = prefix
        self._front = lru_cache(maxsize=FRONTS)(self._make_front)

    async def start(self) -> None:
        """Looks at the server's version, and at what it does when its memory is full."""
        version = _section(await self._client.one("INFO", "server")).get("redis_version", "0")
        if int(version.partition(".")[0]) < 7:
            raise JournalError(f"the journal needs Redis 7 or later, or Valkey, not Redis {version}")
        memory = _section(await self._client.one("INFO", "memory"))
        if memory.get("maxmemory", "0") != "0" and memory.get("maxmemory_policy") != "noeviction":
            _log.warning("the journal's server drops runs when its memory is full: set maxmemory-policy to noeviction")

    async def incarnation(self, proposed: str) -> Incarnation:
        """Returns the store's incarnation."""
        name, age = await self._client.one(*call(scripts.INCARNATION, [self._key("incarnation")], proposed))
        return Incarnation(id=name.decode(), age=age / 1000)

    async def uptime(self) -> float:
        """Returns for how many seconds the server has been up."""
        return float(_section(await self._client.one("INFO", "server")).get("uptime_in_seconds", "0"))

    async def claim(self, tenant: str, request: str, run_id: str, replaces: str, seconds: float) -> tuple[str, bool]:
        """Claims a request id."""
        key = self._key("request", tenant, request)
        held, created = await self._client.one(*call(scripts.CLAIM, [key], run_id, replaces, _ms(seconds)))
        return held.decode(), bool(created)

    async def resolve(self, tenant: str, request: str) -> str:
        """Returns the id of the run that a request id names."""
        held = await self._client.one("GET", self._key("request", tenant, request))
        return held.decode().removeprefix("?") if held else ""

    async def create(self, run: NewRun) -> Outcome:
        """Writes a run without its events."""
        lease, keep = run.lease, _ms(run.keep_seconds)
        commands: list[Command] = [
            # First: a run that nobody looks after would wait for a reader to come by.
            call(scripts.LOOK_AFTER, [self._key("live")], _ms(run.lease_seconds), lease.name),
            call(
                scripts.CREATE,
                self._run_keys(lease.name),
                lease.owner,
                lease.epoch,
                run.record,
                takeovers_text(run.takeovers),
                _ms(run.lease_seconds),
                keep,
            ),
            self._index(lease.name, run.created_at, run.keep_seconds),
        ]
        if run.request:
            tenant, run_id = parts(lease.name)
            key = self._key("request", tenant, run.request)
            commands.append(call(scripts.CONFIRM, [key], run_id, keep, "1"))
        return outcome((await self._client.run(*commands))[1])

    async def discard(self, run: NewRun) -> None:
        """Removes a run that was created in vain."""
        lease = run.lease
        keys = [*self._run_keys(lease.name), self._reader_keys(lease.name)[1]]
        gone = await self._client.run(call(scripts.DISCARD, keys, lease.owner, lease.epoch))
        if run.request and gone[0] == 1:
            # Else another gateway has taken it over, and it is what the request id names.
            tenant, run_id = parts(lease.name)
            await self._client.run(call(scripts.UNCLAIM, [self._key("request", tenant, run.request)], run_id))

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """Appends frames."""
        commands = b"".join([self._append(one) for one in batch])
        answers = await self._writer.run_packed(commands, len(batch))
        return [appended(answer, one.last) for answer, one in zip(answers, batch, strict=True)]

    async def finish(self, name: str, request: str, created_at: float, keep_seconds: float) -> None:
        """Tidies up after a run's end."""
        commands: list[Command] = [
            ("ZREM", self._key("live"), name),
            self._index(name, created_at, keep_seconds),
        ]
        if request:
            tenant, run_id = parts(name)
            key = self._key("request", tenant, request)
            commands.append(call(scripts.CONFIRM, [key], run_id, _ms(keep_seconds), "0"))
        await self._client.run(*commands)

    async def renew(self, leases: Sequence[Lease], lease_seconds: float, keep_seconds: float) -> list[Outcome]:
        """Renews leases."""
        if not leases:
            return []
        times = (_ms(lease_seconds), _ms(keep_seconds))
        renewals = [call(scripts.RENEW, self._run_keys(one.name), one.owner, one.epoch, *times) for one in leases]
        outcomes = [outcome(answer) for answer in await self._client.run(*renewals)]
        ours = [one.name for one, told in zip(leases, outcomes, strict=True) if told.verdict is Verdict.DONE]
        if ours:
            await self._client.one(*call(scripts.LOOK_AFTER, [self._key("live")], _ms(lease_seconds), *ours))
        return outcomes

    async def expired(self, most: int) -> list[str]:
        """Returns the names of runs whose lease seems to be over."""
        return [name.decode() for name in await self._client.one(*call(scripts.EXPIRED, [self._key("live")], most))]

    async def take(self, name: str, owner: str, lease_seconds: float, least_epoch: int = 0) -> Stored | None:
        """Makes a gateway the writer of a run whose lease is over."""
        lease = _ms(lease_seconds)
        answer = await self._client.one(*call(scripts.TAKE, self._run_keys(name)[:1], owner, lease, least_epoch))
        if answer == 0:
            await self._client.one("ZREM", self._key("live"), name)
            return None
        await self._client.one(*call(scripts.LOOK_AFTER, [self._key("live")], lease, name))
        return None if answer == 1 else stored(name, answer)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Lets runs go."""
        if not leases:
            return
        releases = (call(scripts.RELEASE, self._run_keys(one.name)[:1], one.owner, one.epoch) for one in leases)
        released = await self._client.run(*releases)
        commands: list[Command] = []
        for lease, done in zip(leases, released, strict=True):
            if done:
                commands.append(("ZADD", self._key("live"), 0, lease.name))
                commands.append(_message(self._key("released"), Message(RELEASED, lease.name)))
        if commands:
            await self._client.run(*commands)

    async def load(self, name: str) -> Stored | None:
        """Returns a run."""
        answer = await self._client.one(*call(scripts.LOAD, self._run_keys(name)[:1]))
        return stored(name, answer) if answer else None

    async def read(self, name: str, after: str) -> list[Entry]:
        """Returns the entries after a place."""
        found: list[Entry] = []
        while True:
            after = found[-1].place if found else after
            page = await self._client.one("XRANGE", self._run_keys(name)[1], f"({after}", "+", "COUNT", PAGE)
            found += entries(page)
            if len(page) < PAGE:
                return found

    async def known(self, tenant: str) -> list[str]:
        """Returns the ids of a tenant's runs."""
        members = await self._client.one(*call(scripts.KNOWN, [self._key("runs", tenant)]))
        return [member.partition(b":")[2].decode() for member in sorted(members, reverse=True)]

    async def cancel(self, name: str) -> Stored | None:
        """Notes that a run shall be cancelled."""
        answer = await self._client.one(*call(scripts.CANCEL, self._run_keys(name)[:1]))
        return stored(name, answer) if answer else None

    async def attend(self, names: Sequence[str], gateway: str, seconds: float) -> list[bool]:
        """Says that runs have readers at a gateway."""
        commands = [call(scripts.ATTEND, self._reader_keys(name), gateway, _ms(seconds)) for name in names]
        return [bool(answer) for answer in await self._client.run(*commands)]

    async def leave(self, name: str, gateway: str) -> str:
        """Says that a run has no readers at a gateway."""
        owner: bytes = await self._client.one(*call(scripts.LEAVE, self._reader_keys(name), gateway))
        return owner.decode()

    async def attended(self, name: str, gateway: str) -> bool:
        """Returns whether a run has readers at other gateways."""
        return bool(await self._client.one(*call(scripts.ATTENDED, self._reader_keys(name)[1:], gateway)))

    async def post(self, gateway: str, message: Message) -> None:
        """Sends a message to a gateway."""
        key = self._key("inbox", gateway)
        await self._client.run(_message(key, message), ("EXPIRE", key, INBOX_SECONDS))

    async def listen(self, gateway: str, places: Mapping[str, str], own: str, shared: str, seconds: float) -> Heard:
        """Waits for entries and messages."""
        if self._listener is None:
            self._listener = Client(self._address, seconds + self._reply_seconds)
        inbox, released = self._key("inbox", gateway), self._key("released")
        if not shared:
            last = await self._listener.one("XREVRANGE", released, "+", "-", "COUNT", 1)
            shared = last[0][0].decode() if last else BEGINNING
        logs = {self._run_keys(name)[1]: name for name in places}
        streams = (inbox, released, *logs, own or BEGINNING, shared, *places.values())
        found = await self._listener.one("XREAD", "COUNT", PAGE, "BLOCK", max(1, _ms(seconds)), "STREAMS", *streams)
        read: dict[str, Any] = {key.decode(): page for key, page in found or ()}
        to_us, to_all = read.pop(inbox, ()), read.pop(released, ())
        return Heard(
            entries={logs[key]: entries(page) for key, page in read.items()},
            messages=[Message(fields[1].decode(), fields[3].decode()) for _, fields in (*to_us, *to_all)],
            own=position(to_us, own),
            shared=position(to_all, shared),
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()
        await self._writer.close()
        if self._listener is not None:
            await self._listener.close()

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _run_keys(self, name: str) -> list[str]:
        return [f"{self._prefix}:{{{name}}}:run", f"{self._prefix}:{{{name}}}:log"]

    def _reader_keys(self, name: str) -> list[str]:
        return [f"{self._prefix}:{{{name}}}:run", f"{self._prefix}:{{{name}}}:readers"]

    def _index(self, name: str, created_at: float, keep_seconds: float) -> Command:
        tenant, run_id = parts(name)
        # Its number of digits does not change before the year 2286.
        member = f"{_ms(created_at)}:{run_id}"
        return call(scripts.INDEX, [self._key("runs", tenant)], member, _ms(keep_seconds))

    def _append(self, one: Append) -> bytes:
        count, front = self._front(one.lease, one.lease_seconds, one.keep_seconds)
        events = words(one.first, one.last, one.frame)
        ending = one.ending
        if ending is None:
            return beginning(count + 3) + front + events
        end = words(repr(ending.at), ending.record, _ms(ending.keep_seconds))
        return beginning(count + 6) + front + events + end

    def _make_front(self, lease: Lease, lease_seconds: float, keep_seconds: float) -> tuple[int, bytes]:
        """Returns what all appends to a run begin with: how many words, and these."""
        times = (_ms(lease_seconds), _ms(keep_seconds))
        command = call(scripts.APPEND, self._run_keys(lease.name), lease.owner, lease.epoch, *times)
        return len(command), words(*command)


def _message(key: str, message: Message) -> Command:
    return ("XADD", key, "MAXLEN", "~", INBOX_MESSAGES, "*", "kind", message.kind, "name", message.name)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _section(information: Any) -> dict[str, str]:
    """Reads an answer to INFO."""
    if not isinstance(information, bytes):
        raise StoreError("the server says nothing about itself")
    lines = (line.partition(":") for line in information.decode().splitlines())
    return {name: value for name, _, value in lines}
