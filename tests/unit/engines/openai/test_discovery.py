"""How the adapter learns whether its engine answers, and of its models."""

import asyncio
import socket

import pytest

from tokenwire.engines.openai.adapter import OpenAIEngine
from tokenwire.engines.status import EngineState, ModelInfo
from unit.engines import captures
from unit.engines.openai.running import engine_at, running
from unit.engines.scripted_http import Exchange, always, reply, serving


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (captures.body("vllm", "72-models.resp"), (ModelInfo("smollm2", 4096),)),
        (captures.body("sglang", "models.txt"), (ModelInfo("smollm2", 4096),)),
        (captures.body("llama-cpp", "19-models.txt"), (ModelInfo("smollm2-135m-instruct", 2048),)),
        (
            b'{"object":"list","data":[{"id":"a"},{"id":"b","meta":{"n_ctx_train":9}}]}',
            (ModelInfo("a"), ModelInfo("b", 9)),
        ),
        (b'{"object":"list","data":null}', ()),
    ],
)
async def test_the_models_are_those_that_the_engine_lists(body: bytes, expected: tuple[ModelInfo, ...]) -> None:
    async with running(always(reply(200, body.strip()))) as (engine, server):
        assert (engine.status.state, engine.status.models) == (EngineState.UNAVAILABLE, ())
        await engine.check()
        assert (engine.status.state, engine.status.models) == (EngineState.READY, expected)
        assert (server.requests[0].method, server.requests[0].path) == ("GET", "/v1/models")


@pytest.mark.asyncio
async def test_a_configured_model_is_known_from_the_start_and_alone() -> None:
    body = b'{"data":[{"id":"a"},{"id":"b","max_model_len":7}]}'
    async with running(always(reply(200, body)), model="b") as (engine, _):
        assert engine.status.models == (ModelInfo("b"),)
        await engine.check()
        assert engine.status.models == (ModelInfo("b", 7),)


@pytest.mark.asyncio
async def test_a_configured_model_that_is_not_listed_is_used_all_the_same() -> None:
    async with running(always(reply(200, b'{"data":[{"id":"a"}]}')), model="alias") as (engine, _):
        await engine.check()
        assert (engine.status.state, engine.status.models) == (EngineState.READY, (ModelInfo("alias"),))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        reply(503, b"loading"),
        reply(401, b'{"error":"Unauthorized"}'),
        reply(200, b"<html>"),
        reply(200, b"{}"),
        reply(200, b'{"data":[{"name":"a"}]}'),
        reply(200, b""),
        b"",
    ],
)
async def test_an_engine_that_does_not_list_its_models_is_unavailable_and_keeps_those_known(answer: bytes) -> None:
    async with running(always(reply(200, b'{"data":[{"id":"a"}]}')), reply_timeout=1.0) as (engine, server):
        await engine.check()
        server.script = always(answer)
        await engine.check()
        assert (engine.status.state, engine.status.models) == (EngineState.UNAVAILABLE, (ModelInfo("a"),))


class _Sleeper:
    """Stands still until the test lets it go on, and notes how long it would have slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._asked = asyncio.Semaphore(0)
        self._go_on = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._asked.release()
        await self._go_on.acquire()

    async def next(self) -> None:
        """Ends the present sleep, if there is one, and waits for the next."""
        if self.slept:
            self._go_on.release()
        await self._asked.acquire()


@pytest.mark.asyncio
async def test_an_engine_that_is_down_is_asked_more_often_until_it_is_up() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    sleeper = _Sleeper()
    engine = engine_at(f"http://127.0.0.1:{port}", check_interval=30.0, sleep=sleeper)
    try:
        await engine.start()
        for _ in range(5):
            await sleeper.next()
            assert engine.status.state is EngineState.UNAVAILABLE
        assert sleeper.slept == [0.25, 0.5, 1.0, 2.0, 2.0]
        changed = asyncio.create_task(engine.status.changed())
        async with serving(always(reply(200, b'{"data":[{"id":"a"}]}')), port):
            await sleeper.next()
            await changed
            assert (engine.status.state, engine.status.models) == (EngineState.READY, (ModelInfo("a"),))
            await sleeper.next()
        await sleeper.next()
        assert (engine.status.state, engine.status.models) == (EngineState.UNAVAILABLE, (ModelInfo("a"),))
        assert sleeper.slept[5:] == [30.0, 30.0, 0.25]
    finally:
        await engine.close()


@pytest.mark.asyncio
async def test_a_short_interval_is_kept_while_the_engine_is_down() -> None:
    sleeper = _Sleeper()
    async with running(always(reply(500, b"")), check_interval=0.1, sleep=sleeper) as (engine, _):
        await engine.start()
        for _ in range(3):
            await sleeper.next()
        assert sleeper.slept == [0.1, 0.1, 0.1]


@pytest.mark.asyncio
async def test_close_ends_the_checks_whatever_they_wait_for() -> None:
    arrived = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        arrived.set()
        await exchange.hung_up()

    before = asyncio.all_tasks()
    async with serving(script) as server:
        engine = engine_at(server.url)
        await engine.start()
        await arrived.wait()
        await engine.close()
        await engine.close()
        await server.until_open(0)
        assert not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("checks of ")]


@pytest.mark.asyncio
async def test_a_bug_in_a_check_leaves_the_engine_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EngineState] = []
    checks = 0

    async def check(engine: OpenAIEngine) -> None:
        nonlocal checks
        checks += 1
        if checks == 1:
            raise RuntimeError("a bug")
        engine.status.set(EngineState.READY, (ModelInfo("a"),))

    monkeypatch.setattr(OpenAIEngine, "check", check)
    engine = engine_at("http://127.0.0.1:1", sleep=lambda _: asyncio.sleep(0))
    engine.status.watch(lambda: seen.append(engine.status.state))
    await engine.start()
    while EngineState.READY not in seen:
        await engine.status.changed()
    await engine.close()
    assert checks >= 2
    assert seen == [EngineState.READY]
