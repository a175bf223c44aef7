"""What is stored is sealed where there is a key: nothing of prompts and answers is in any key of the server."""

import json

import pytest

from harness.redis_server import RedisServer
from tokenwire.domain.errors import TokenwireError
from tokenwire.journal.sealing import Sealer
from unit.journal.redis.gateways import Client, Gateway, asked, comes, gateways, text_of, whole

PROMPT = "A most secret question"


def prefix_of(gateway: Gateway) -> str:
    prefix: str = gateway.store._prefix  # type: ignore[attr-defined]
    return prefix


async def dump(gateway: Gateway) -> bytes:
    """Returns all that the server holds of these gateways: keys, values, and the entries of streams."""
    client = gateway.store._client  # type: ignore[attr-defined]
    found = b""
    for key in await client.one("KEYS", f"{prefix_of(gateway)}*"):
        kind = await client.one("TYPE", key)
        match kind:
            case b"hash":
                value = await client.one("HGETALL", key)
            case b"stream":
                value = await client.one("XRANGE", key, "-", "+")
            case b"zset":
                value = await client.one("ZRANGE", key, 0, -1)
            case _:
                value = await client.one("GET", key)
        found += key + _flat(value)
    return found


def _flat(value: object) -> bytes:
    if isinstance(value, list):
        return b"\0".join(_flat(one) for one in value)
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.mark.asyncio
@pytest.mark.parametrize("sealed", [True, False])
async def test_neither_prompt_nor_answer_is_in_the_store(sealed: bool, redis_server: RedisServer) -> None:
    if sealed:
        pytest.importorskip("cryptography")
    sealer = Sealer(b"k" * 32) if sealed else None
    async with gateways("a", "b", url=redis_server.url, sealer=sealer) as (a, b):
        run = await a.submit(asked("my own name for it", prompt=PROMPT))
        await comes(run, lambda: len(text_of(run)) > 20)
        found = await dump(a)
        assert run.id.encode() in found
        told = [word in found for word in (PROMPT.encode(), text_of(run)[:10].encode(), b"my own name")]
        assert told == [not sealed] * 3
        a.gate.set()
        b.gate.set()
        assert await Client(run.id).follow(b) == whole(prompt=PROMPT)
        if sealed:
            assert text_of(run)[:10].encode() not in await dump(a)
        # Of a run that has ended the prompt is not kept at all.
        await comes(run, lambda: run.end is not None)
        assert PROMPT.encode() not in await dump(a)


@pytest.mark.asyncio
async def test_a_gateway_with_another_key_reads_nothing_and_takes_nothing_over(redis_server: RedisServer) -> None:
    pytest.importorskip("cryptography")
    async with gateways("a", url=redis_server.url, sealer=Sealer(b"k" * 32)) as (a,):
        run = await a.submit(asked())
        await comes(run, lambda: len(text_of(run)) > 5)
        other = Sealer(b"o" * 32)
        async with gateways("b", url=redis_server.url, prefix=prefix_of(a), sealer=other) as (b,):
            with pytest.raises(TokenwireError) as refused:
                await b.find(run.id)
            assert refused.value.reason == "JOURNAL_LOST"
            name = a.journal._holdings.name(run.id)
            await a.crash()
            assert await b.journal._takeover.take(name) is None
            assert b.journal.held == 0
            async with gateways("c", url=redis_server.url, prefix=prefix_of(a), sealer=Sealer(b"k" * 32)) as (c,):
                c.gate.set()
                assert await Client(run.id).follow(c) == whole()
            assert b.engine.started == 0
