"""kill -9 of a gateway with a journal in files, and its restart at the same place."""

import base64
from contextlib import AsyncExitStack
from typing import Any

import pytest

from faults.engine import expected
from faults.processes import EngineProcess, Gateway, Home
from faults.reading import PROMPT, Reader, reading, whole
from tokenwire.v1.run_pb2 import FAILOVER_POLICY_NONE
from tokenwire_client import RefusedError, RunFailedError

TOKENS = 110


async def started(home: Home, hold: int | None = None, **settings: str) -> tuple[EngineProcess, Gateway]:
    """Starts an engine, and a gateway with a journal in files."""
    engine = home.engine(hold=hold)
    gateway = home.gateway({"one": engine}, journal=f"file:{home.folder / 'journal'}", **settings)
    await home.start(engine, gateway)
    return engine, gateway


def restart(gateway: Gateway) -> None:
    """Kills a gateway, and starts it again."""
    gateway.kill()
    gateway.start()


@pytest.mark.asyncio
@pytest.mark.parametrize(("at", "kills"), [(1, 1), (60, 1), (TOKENS - 1, 1), (20, 3)])
async def test_a_stream_goes_on_to_its_exact_end_when_its_gateway_is_killed(home: Home, at: int, kills: int) -> None:
    # Each answer waits after so many tokens.
    engine, gateway = await started(home, hold=at)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        for kill in range(1, kills + 1):
            # The last of them may be a part of a character.
            await reader.reads(max(1, kill * at - 4))
            gateway.kill()
            if kill == kills:
                await engine.release()
            gateway.start()
        await whole(reader, PROMPT, TOKENS)
        assert len(reader.failures) >= kills
        assert all(one.broken for one in reader.failures)
        assert reader.ways == ["FIRST", *["BY_TOKENS"] * kills]
        # It can be read after one more.
        restart(gateway)
        async with client.attach(reader.run_id) as stream:
            assert (await stream.result()).text == expected(PROMPT, TOKENS)
    await engine.idle()


@pytest.mark.asyncio
async def test_a_gateway_killed_before_the_first_token_begins_the_answer_anew(home: Home) -> None:
    engine, gateway = await started(home, hold=0)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.comes(lambda: bool(reader.dispatched))
        await engine.busy()
        restart(gateway)
        # The old connection is closed, and the new gateway asks once more.
        await reader.comes(lambda: len(reader.dispatched) == 2)
        await engine.release()
        await whole(reader, PROMPT, TOKENS)
        assert reader.ways == ["FIRST", "FIRST"]
    assert (await engine.counts())["started"] == 2
    await engine.idle()


@pytest.mark.asyncio
async def test_a_gateway_killed_right_after_start_loses_no_request(home: Home) -> None:
    engine, gateway = await started(home, hold=0)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.comes(lambda: bool(reader.stream and reader.stream.run_id))
        restart(gateway)
        run_id = reader.run_id
        await engine.release()
        await whole(reader, PROMPT, TOKENS)
        assert reader.run_id == run_id
        assert len(await client.runs()) == 1


@pytest.mark.asyncio
async def test_a_gateway_killed_with_ten_streams_finishes_all_ten(home: Home) -> None:
    engine, gateway = await started(home, hold=30)
    prompts = [f"{PROMPT} {number}" for number in range(10)]
    async with gateway.client() as client, AsyncExitStack() as stack:
        readers: list[Reader] = []
        for number, prompt in enumerate(prompts):
            options: dict[str, Any] = {"max_tokens": TOKENS, "n": 1 + number % 2}
            readers.append(await stack.enter_async_context(reading(client.stream, prompt, **options)))
        for kill in (1, 2):
            for reader in readers:
                await reader.reads(30 * kill - 4)
            gateway.kill()
            if kill == 2:
                await engine.release()
            gateway.start()
        for number, (prompt, reader) in enumerate(zip(prompts, readers, strict=True)):
            await whole(reader, prompt, TOKENS, 1 + number % 2)
            assert reader.failures
        assert len(await client.runs()) == 10
    await engine.idle()


@pytest.mark.asyncio
async def test_request_ids_name_the_same_runs_after_a_kill(home: Home) -> None:
    engine, gateway = await started(home, hold=40)
    async with gateway.client() as client:
        done = await client.generate(PROMPT, max_tokens=40, request_id="done")
        async with reading(client.stream, PROMPT, max_tokens=TOKENS, request_id="running") as reader:
            await reader.reads(30)
            restart(gateway)
            await gateway.ready()
            await engine.release()
            async with reading(client.stream, PROMPT, max_tokens=TOKENS, request_id="running") as other:
                await whole(other, PROMPT, TOKENS)
                await whole(reader, PROMPT, TOKENS)
                assert other.run_id == reader.run_id
        again = await client.generate(PROMPT, max_tokens=40, request_id="done")
        assert (again.run_id, again.text) == (done.run_id, done.text)
        with pytest.raises(RefusedError) as refused:
            await client.generate(PROMPT, max_tokens=41, request_id="done")
        assert refused.value.reason == "REQUEST_ID_TAKEN"
    assert (await engine.counts())["started"] == 3


@pytest.mark.asyncio
async def test_a_run_that_must_not_be_continued_ends_with_its_error(home: Home) -> None:
    engine, gateway = await started(home, hold=40)
    async with (
        gateway.client() as client,
        reading(client.stream, PROMPT, max_tokens=TOKENS, failover=FAILOVER_POLICY_NONE) as reader,
    ):
        await reader.reads(40)
        restart(gateway)
        error = await reader.failed()
    assert isinstance(error, RunFailedError)
    assert (error.code.name, error.reason) == ("DATA_LOSS", "CONTINUATION_UNSUPPORTED")
    assert error.failure.metadata["continuation_refused"] == "run.failover"
    assert expected(PROMPT, TOKENS).startswith(reader.text)
    assert len(reader.text) >= len(expected(PROMPT, 40))
    assert reader.ways == ["FIRST"]
    await engine.idle()


@pytest.mark.asyncio
async def test_gateway_and_engine_killed_at_once_are_no_loss(home: Home) -> None:
    engine, gateway = await started(home, hold=40)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(40)
        gateway.kill()
        engine.kill()
        engine.hold(None)
        gateway.start()
        engine.start()
        await whole(reader, PROMPT, TOKENS)
    await engine.idle()


@pytest.mark.asyncio
async def test_a_cancelled_run_stays_cancelled_over_a_kill(home: Home) -> None:
    engine, gateway = await started(home)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=8000) as reader:
        await reader.reads(20)
        await client.cancel(reader.run_id)
        await reader.finished()
        restart(gateway)
        async with client.attach(reader.run_id) as stream:
            assert (await stream.result()).text == reader.text
    assert (await engine.counts())["started"] == 1
    await engine.idle()


@pytest.mark.asyncio
async def test_nobody_reads_after_a_kill_and_the_run_ends_for_want_of_readers(home: Home) -> None:
    engine, gateway = await started(home, resume_seconds="0.3")
    async with gateway.client() as client:
        run_id = ""
        async with reading(client.stream, PROMPT, max_tokens=8000, orphan_grace=0.0, request_id="mine") as reader:
            await reader.reads(20)
            run_id = reader.run_id
            gateway.kill()
        gateway.start()
        await engine.busy()
        await engine.idle()
        with pytest.raises(RunFailedError) as failed:
            await client.wait(run_id)
    assert failed.value.reason == "ORPHANED"


@pytest.mark.asyncio
async def test_with_memory_alone_a_kill_is_said_to_be_the_end(home: Home) -> None:
    engine = home.engine(hold=40)
    gateway = home.gateway({"one": engine})
    await home.start(engine, gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(40)
        restart(gateway)
        error = await reader.failed()
    assert isinstance(error, RefusedError)
    assert (error.code.name, error.reason) == ("NOT_FOUND", "RUN_NOT_FOUND")
    assert error.text == reader.text
    assert expected(PROMPT, TOKENS).startswith(reader.text)
    await engine.idle()


@pytest.mark.asyncio
async def test_with_a_key_the_folder_tells_nothing(home: Home) -> None:
    pytest.importorskip("cryptography", reason="an encrypted journal needs cryptography")
    key = base64.b64encode(bytes(range(32))).decode()
    engine, gateway = await started(home, hold=60, journal_key=key)
    prompt = "A secret that nobody may read"
    async with gateway.client() as client, reading(client.stream, prompt, max_tokens=TOKENS) as reader:
        await reader.reads(56)
        gateway.kill()
        kept = b"".join(path.read_bytes() for path in (home.folder / "journal").iterdir())
        await engine.release()
        gateway.start()
        await whole(reader, prompt, TOKENS)
        restart(gateway)
        async with client.attach(reader.run_id) as stream:
            assert (await stream.result()).text == reader.text
    kept += b"".join(path.read_bytes() for path in (home.folder / "journal").iterdir())
    assert len(kept) > len(reader.text)
    for secret in (prompt, *words(prompt), *words(reader.text)):
        assert secret.encode() not in kept
    assert prompt not in gateway.output


def words(text: str) -> list[str]:
    """Returns what would give a text away: stretches that cannot be there by chance."""
    return [text[start : start + 8] for start in range(0, len(text) - 8, 8)]
