"""grpc.health.v1: what probes and load balancers see."""

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from harness.leaving import leaving
from harness.raw_http2 import grpc_message, raw_http2
from harness.reading import next_event
from harness.refusals import refused
from harness.service import Service, service
from harness.waiting import until
from tokenwire.engines.scripted import Pause, ScriptedEngine
from tokenwire.engines.status import EngineState
from tokenwire.rpc.methods import SERVICES
from tokenwire.v1.generate_service_pb2 import GenerateRequest

GENERATE = "tokenwire.v1.GenerateService"
CHAT = "tokenwire.v1.ChatService"
RUNS = "tokenwire.v1.RunService"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def _check(running: Service, name: str) -> int:
    answer = await HealthStub(running.channel).Check(HealthCheckRequest(service=name))
    return int(answer.status)


@pytest.mark.asyncio
async def test_the_process_each_service_and_each_engine_serve() -> None:
    async with service(ScriptedEngine("one"), ScriptedEngine("two")) as running:
        for name in ("", *(each.full_name for each in SERVICES), "engine:one", "engine:two"):
            assert await _check(running, name) == SERVING, name


@pytest.mark.asyncio
async def test_a_name_that_nobody_knows_is_not_found_by_check_and_unknown_to_watch() -> None:
    async with service() as running:
        for name in ("nothing", "engine:nothing", "tokenwire.v1.Nothing"):
            told = await refused(HealthStub(running.channel).Check(HealthCheckRequest(service=name)))
            assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "SERVICE_NOT_FOUND")
        watch = HealthStub(running.channel).Watch(HealthCheckRequest(service="nothing"))
        assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


@pytest.mark.asyncio
async def test_an_engine_that_fails_is_told_and_its_services_with_the_last_one() -> None:
    one, two = ScriptedEngine("one"), ScriptedEngine("two")
    async with service(one, two) as running:
        stub = HealthStub(running.channel)
        names = ("engine:one", GENERATE, CHAT, RUNS, "")
        watches = {name: stub.Watch(HealthCheckRequest(service=name)) for name in names}
        for watch in watches.values():
            assert (await watch.read()).status == SERVING
        one.status.set(EngineState.UNAVAILABLE)
        assert (await watches["engine:one"].read()).status == NOT_SERVING
        assert await _check(running, GENERATE) == SERVING
        two.status.set(EngineState.UNAVAILABLE)
        for name in (GENERATE, CHAT):
            assert (await watches[name].read()).status == NOT_SERVING
        # Runs can still be read, and the process must not be killed for its engines.
        assert await _check(running, RUNS) == SERVING
        assert await _check(running, "") == SERVING
        one.status.set(EngineState.READY)
        assert (await watches[GENERATE].read()).status == SERVING
        for watch in watches.values():
            watch.cancel()


@pytest.mark.asyncio
async def test_a_model_that_is_being_loaded_serves_because_calls_wait_for_it() -> None:
    engine = ScriptedEngine()
    engine.status.set(EngineState.LOADING)
    async with service(engine) as running:
        assert await _check(running, GENERATE) == SERVING
        assert await _check(running, "engine:scripted") == NOT_SERVING


@pytest.mark.asyncio
async def test_watchers_see_the_end_of_service_while_streams_still_run() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with leaving(engine, drain_seconds=600.0) as server:
        running = server.service
        stream = running.generate.StreamGenerate(GenerateRequest(prompt="hi"))
        await next_event(stream)
        stub = HealthStub(running.channel)
        watches = [stub.Watch(HealthCheckRequest(service=name)) for name in ("", GENERATE, "engine:scripted")]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        server.leave.set()
        for watch in watches:
            assert (await watch.read()).status == NOT_SERVING
        # It says so on a listener that is still open, beside a run that still runs, and does not change its mind.
        engine.status.set(EngineState.UNAVAILABLE)
        engine.status.set(EngineState.READY)
        assert await _check(running, "engine:scripted") == NOT_SERVING
        assert engine.running == 1
        for watch in watches:
            watch.cancel()
        stream.cancel()


@pytest.mark.asyncio
async def test_a_watcher_that_does_not_read_holds_up_neither_the_others_nor_the_end() -> None:
    engine = ScriptedEngine()
    request = HealthCheckRequest(service="engine:scripted")
    async with leaving(engine, drain_seconds=0.0) as server, raw_http2(server.service.port, window=3) as raw:
        body = grpc_message(request.SerializeToString())
        await raw.exhausted(await raw.request("/grpc.health.v1.Health/Watch", body))
        watch = HealthStub(server.service.channel).Watch(request, timeout=20)
        assert (await watch.read()).status == SERVING
        engine.status.set(EngineState.UNAVAILABLE)
        assert (await watch.read()).status == NOT_SERVING
        engine.status.set(EngineState.READY)
        assert (await watch.read()).status == SERVING
        server.leave.set()
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()


@pytest.mark.asyncio
async def test_probes_are_answered_while_many_streams_run() -> None:
    engine = ScriptedEngine(script=lambda job: [Pause(None)])
    async with service(engine) as running:
        streams = [running.generate.StreamGenerate(GenerateRequest(prompt="hi")) for _ in range(100)]
        await until(lambda: engine.started == 100, "all streams run")
        assert await _check(running, "") == SERVING
        for stream in streams:
            stream.cancel()


@pytest.mark.asyncio
async def test_list_tells_all_at_once() -> None:
    async with service() as running:
        listed = await HealthStub(running.channel).List(HealthListRequest())
    statuses = {name: one.status for name, one in listed.statuses.items()}
    assert statuses[""] == statuses["tokenwire.v1.ChatService"] == statuses["engine:scripted"] == SERVING
