"""A process that is full: it refuses clearly and at once, stays within reach, and every place comes back."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from harness.byte_calls import bidi_call, stream_call, unary_call
from harness.command_line import COMMAND, environment
from harness.raw_http2 import grpc_message, raw_http2
from harness.reading import next_event, text_of
from harness.refusals import Refusal, read_to_refusal, refused
from harness.service import Service, service
from harness.waiting import until
from tokenwire import app
from tokenwire.domain.errors import TokenwireError
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import Pause, ScriptedEngine, Step, words
from tokenwire.interceptors import admission
from tokenwire.interceptors.admission import with_reserve, without_reserve
from tokenwire.transport.descriptors import shares
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.message_pb2 import Message
from tokenwire.v1.run_pb2 import Limits, RunOptions
from tokenwire.v1.run_service_pb2 import (
    AttachRunRequest,
    CancelRunRequest,
    GetRunRequest,
    ListRunsRequest,
    WaitRunRequest,
)
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest
from tokenwire_client import AsyncClient, Client, Failure, Policy

GENERATE = "/tokenwire.v1.GenerateService/StreamGenerate"
BATCH = "/tokenwire.v1.BatchService/BatchGenerate"
# Its engine may be silent for longer than a client.
LONG = GenerateRequest(
    prompt="long", run=RunOptions(request_id="long"), limits=Limits(stall_timeout=Duration(seconds=60))
)
SHORT = GenerateRequest(prompt="short")
CHAT = ChatRequest(messages=[Message(content="short")])
NO_MESSAGE = b"\xff"
BOUND = 10
QUICK = Policy(first_wait=0.001, longest_wait=0.02)
ROUND_ROBIN = [("grpc.lb_policy_name", "round_robin")]


def _script(job: Job) -> list[Step]:
    return words("a few words") if job.submission.prompt != "long" else [*words("hi")[:-1], Pause(None)]


def _engine() -> ScriptedEngine:
    return ScriptedEngine(script=_script)


@asynccontextmanager
async def full(bound: int = BOUND, *, reserve: bool = False) -> AsyncIterator[tuple[Service, list[Any]]]:
    """A service all of whose places are taken by readers of one run; `reserve`: those for resumes as well."""
    async with service(_engine(), streams_max=bound) as running:
        held: list[Any] = [running.generate.StreamGenerate(LONG)]
        await next_event(held[0])
        more = bound + bound // 10 * reserve - 1
        held += [running.runs.AttachRun(AttachRunRequest(request_id="long")) for _ in range(more)]
        for one in held[1:]:
            await next_event(one)
        yield running, held
        for one in held:
            one.cancel()


def _is_full(told: Refusal, limit: int = BOUND) -> None:
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "TOO_MANY_STREAMS")
    assert told.metadata == {"retryable": "true", "limit": str(limit)}
    assert told.retry_seconds is not None
    assert 0.5 <= told.retry_seconds <= 1.5
    assert told.rpc_id


async def _takes(running: Service, number: int) -> None:
    """Fails unless exactly so many new streams are taken at once."""
    held: list[Any] = []
    while len(held) <= number:
        one = running.generate.StreamGenerate(GenerateRequest(prompt="long"))
        try:
            await next_event(one)
        except grpc.aio.AioRpcError:
            break
        held.append(one)
    for one in held:
        one.cancel()
    assert len(held) == number


@pytest.mark.asyncio
async def test_every_call_that_stays_open_is_refused_beyond_the_bound_before_it_is_parsed() -> None:
    async with full() as (running, _):
        started = running.app.fleet.engines[0].started  # type: ignore[attr-defined]
        for method in (GENERATE, "/tokenwire.v1.ChatService/StreamChat"):
            _is_full((await read_to_refusal(stream_call(running.channel, method)(NO_MESSAGE)))[1])
        for method in ("/tokenwire.v1.GenerateService/Generate", "/tokenwire.v1.ChatService/Chat"):
            _is_full(await refused(unary_call(running.channel, method)(NO_MESSAGE)))
        _is_full((await read_to_refusal(bidi_call(running.channel, BATCH)(iter([NO_MESSAGE]))))[1])
        assert running.app.fleet.engines[0].started == started  # type: ignore[attr-defined]
        assert len(running.app.runs.list("local")) == 1


@pytest.mark.asyncio
async def test_a_full_process_is_seen_to_live_and_its_runs_can_be_looked_at_and_cancelled() -> None:
    async with full(reserve=True) as (running, held):
        assert (await HealthStub(running.channel).Check(HealthCheckRequest())).status == 1
        watch = HealthStub(running.channel).Watch(HealthCheckRequest())
        assert (await watch.read()).status == 1
        reflected = bidi_call(running.channel, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert [answer async for answer in reflected(iter([b"\x3a\x00"]))]
        assert (await running.server.GetServerInfo(GetServerInfoRequest())).version
        assert len((await running.runs.ListRuns(ListRunsRequest())).runs) == 1
        assert (await running.runs.GetRun(GetRunRequest(request_id="long"))).readers == len(held)
        await running.runs.CancelRun(CancelRunRequest(request_id="long"))
        for one in held:
            while await one.read() is not grpc.aio.EOF:
                pass
        # Which makes room.
        assert await text_of(running.generate.StreamGenerate(SHORT)) == "a few words"
        watch.cancel()


@pytest.mark.asyncio
async def test_a_process_that_is_full_of_new_calls_takes_back_the_readers_of_its_runs() -> None:
    async with full() as (running, held):
        _is_full((await read_to_refusal(running.generate.StreamGenerate(SHORT)))[1])
        held.append(running.runs.AttachRun(AttachRunRequest(request_id="long")))
        await next_event(held[-1])
        # The reserve has an end as well.
        beyond = BOUND + BOUND // 10
        attach = running.runs.AttachRun(AttachRunRequest(request_id="long"))
        _is_full((await read_to_refusal(attach))[1], beyond)
        _is_full(await refused(running.runs.WaitRun(WaitRunRequest(request_id="long"))), beyond)
        # A place of the reserve is none for a new call, though one reader has left.
        held.pop(0).cancel()
        await _readers(running, BOUND)
        _is_full((await read_to_refusal(running.generate.StreamGenerate(SHORT)))[1])


async def _readers(running: Service, number: int) -> None:
    """Waits until so many read."""
    runs = running.app.runs
    await until(lambda: sum(run.readers for run in runs.list("local")) == number, f"{number} read")


@pytest.mark.asyncio
async def test_calls_that_answer_once_hold_a_place_until_they_do() -> None:
    async with service(_engine(), streams_max=3) as running:
        waiting: list[Any] = [running.generate.Generate(LONG)]
        await until(lambda: len(running.app.runs.list("local")) == 1, "the run is there")
        waiting += [running.runs.WaitRun(WaitRunRequest(request_id="long")) for _ in range(2)]
        await _readers(running, 3)
        _is_full(await refused(running.generate.Generate(SHORT)), 3)
        _is_full(await refused(running.chat.Chat(CHAT)), 3)
        await running.runs.CancelRun(CancelRunRequest(request_id="long"))
        for one in waiting:
            await one
        assert (await running.chat.Chat(CHAT)).choices[0].text == "a few words"
        await _takes(running, 3)


@pytest.mark.asyncio
async def test_every_place_comes_back_however_a_call_ends() -> None:
    async with service(_engine(), streams_max=3, stall_seconds=0.3) as running:
        for _ in range(2):
            # Refused by what is inside, answered, cancelled, over its deadline, cut off, and left without a word.
            for bad in (NO_MESSAGE, GenerateRequest().SerializeToString()):
                for _ in range(4):
                    told = (await read_to_refusal(stream_call(running.channel, GENERATE)(bad)))[1]
                    assert told.reason != "TOO_MANY_STREAMS"
            assert await text_of(running.generate.StreamGenerate(SHORT)) == "a few words"
            held = [running.generate.StreamGenerate(LONG) for _ in range(3)]
            for one in held:
                await next_event(one)
                one.cancel()
            await _readers(running, 0)
            for _ in range(3):
                with suppress(grpc.aio.AioRpcError):
                    await text_of(running.generate.StreamGenerate(LONG, timeout=0.1))
            await _readers(running, 0)
            async with raw_http2(running.port, window=0) as raw:
                streams = [await raw.request(GENERATE, grpc_message(LONG.SerializeToString())) for _ in range(3)]
                await _readers(running, 3)
                # Cut off.
                await _readers(running, 0)
                assert not any(raw.data[stream] for stream in streams)
            async with raw_http2(running.port) as raw:
                for _ in range(3):
                    await raw.request(GENERATE, grpc_message(LONG.SerializeToString()))
                await _readers(running, 3)
            await _readers(running, 0)
            await _takes(running, 3)
            await _readers(running, 0)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[TokenwireError]:
    """Notes each refusal, after which clients may come back at once."""
    monkeypatch.setattr(admission, "RETRY_MIN_SECONDS", 0.0)
    monkeypatch.setattr(admission, "RETRY_MAX_SECONDS", 0.01)
    noted: list[TokenwireError] = []
    refuse = admission.Admission._refusal

    def refusal(self: admission.Admission, bound: int) -> TokenwireError:
        noted.append(refuse(self, bound))
        return noted[-1]

    monkeypatch.setattr(admission.Admission, "_refusal", refusal)
    return noted


@pytest.mark.asyncio
async def test_grpcs_own_policy_tries_again_too_until_there_is_room(refusals: list[TokenwireError]) -> None:
    # It does so only if nothing at all has come before the status.
    policy = {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "0.2s", "backoffMultiplier": 1}
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy | {"retryableStatusCodes": ["UNAVAILABLE"]}}]}
    options = [("grpc.service_config", json.dumps(config))]
    async with full(1) as (running, held), grpc.aio.insecure_channel(running.address, options=options) as channel:
        reading = asyncio.ensure_future(text_of(GenerateServiceStub(channel).StreamGenerate(SHORT)))
        await until(lambda: len(refusals) == 1, "it is refused")
        held[0].cancel()
        assert await reading == "a few words"


@pytest.mark.asyncio
@pytest.mark.parametrize("front", ["async", "sync"])
async def test_our_client_finds_a_server_that_has_room(front: str, refusals: list[TokenwireError]) -> None:
    met: list[str] = []

    def again(attempt: int, failure: Failure, seconds: float) -> None:
        met.append(failure.reason)

    async def ask(target: str) -> list[str]:
        async with AsyncClient(target, policy=QUICK, options=ROUND_ROBIN) as client:
            async with client.stream("short", on_reconnect=again) as stream:
                texts = ["".join([piece async for piece in stream.pieces()])]
            async with client.batch(["short"], on_reconnect=again) as batch:
                texts += [one.result.text if one.result else "" async for one in batch]
            return [*texts, (await client.generate("short")).text, (await client.chat("short")).text]

    def work(target: str) -> list[str]:
        with Client(target, policy=QUICK, options=ROUND_ROBIN) as client:
            with client.stream("short", on_reconnect=again) as stream:
                texts = ["".join(stream.pieces())]
            with client.batch(["short"], on_reconnect=again) as batch:
                texts += [one.result.text if one.result else "" for one in batch]
            return [*texts, client.generate("short").text, client.chat("short").text]

    async with full(1) as (one, _), service(_engine()) as other:
        target = f"ipv4:{one.address},{other.address}"
        # A channel may know the one server before the other.
        while not met:
            texts = await (ask(target) if front == "async" else asyncio.to_thread(work, target))
            assert texts == ["a few words"] * 4
        assert len(refusals) >= len(met)
    assert set(met) == {"TOO_MANY_STREAMS"}


SCARCE = 130


@asynccontextmanager
async def limited(soft: int, hard: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A server of its own that may have so many file descriptors, and its port."""
    code = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    serve = (*COMMAND, "serve", "--engine", "scripted", "--listen", "127.0.0.1:0", "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *serve, stdout=asyncio.subprocess.PIPE, env=environment()
    )
    try:
        assert process.stdout is not None
        found = re.search(rb"serves on .*:(\d+)", await process.stdout.readline())
        assert found is not None
        yield process, int(found[1])
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.asyncio
@pytest.mark.parametrize("bound", [0, 10, 1000])
async def test_the_bound_is_never_more_than_there_are_file_descriptors_for(
    bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "obtainable", lambda: 100)
    allowed = bound if bound == 10 else without_reserve(shares(0, 100).streams)
    assert 10 <= allowed < 20
    async with service(_engine(), streams_max=bound) as running:
        await _takes(running, allowed)


@pytest.mark.asyncio
async def test_a_server_takes_the_file_descriptors_that_it_may_have() -> None:
    async with limited(256, 2000) as (process, _):
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert re.search(r"Max open files +2000 +2000 ", limits)


@pytest.mark.asyncio
async def test_where_file_descriptors_are_scarce_a_connection_too_many_is_closed_and_all_others_are_served() -> None:
    # By default such a client waits until somebody else leaves, and connections to engines fail meanwhile.
    async with limited(SCARCE, SCARCE) as (process, port):
        taken = shares(with_reserve(1000), SCARCE)
        async with AsyncExitStack() as stack:
            raws = [await stack.enter_async_context(raw_http2(port)) for _ in range(taken.connections)]
            for _ in range(SCARCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with suppress(ConnectionError):
                    assert not await reader.read(1), "it is closed at once, without a word"
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            open_files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            # The engines' share is still there.
            assert open_files + taken.streams <= SCARCE
            body = grpc_message(SHORT.SerializeToString())
            streams = [(raw, await raw.request(GENERATE, body)) for raw in raws]
            codes = [(await raw.answered(stream))["grpc-status"] for raw, stream in streams]
            assert set(codes) <= {"0", "14"}
            assert codes.count("0") >= without_reserve(taken.streams)
        # When they have left there is room again.
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = GenerateServiceStub(channel)
            assert (await stub.Generate(SHORT, wait_for_ready=True)).choices[0].text
