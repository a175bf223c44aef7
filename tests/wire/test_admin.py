"""The admin port: what probes see from the first moment to the last, and what Prometheus reads, on a real socket."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog

from harness.chosen_transport import CHOSEN
from harness.command_line import begun, outcome, tokenwire
from harness.leaving import leaving
from harness.reading import text_of
from harness.service import service
from harness.waiting import until
from tokenwire.admin import port as port_module
from tokenwire.admin.error import AdminError
from tokenwire.admin.port import AdminPort, Exposition
from tokenwire.admin.readiness import Phase, Readiness
from tokenwire.app import App, build
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.scripted import Fail, ScriptedEngine, WaitFor, words
from tokenwire.engines.status import EngineState
from tokenwire.server import serving
from tokenwire.settings import Settings
from tokenwire.v1.generate_service_pb2 import GenerateRequest

ADMIN = "127.0.0.1:0"
READY = {"ready": True, "reasons": [], "engines": {"scripted": "ready"}}


class Answer:
    """What came back."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.headers = dict(line.split(": ", 1) for line in lines)


async def sent(port: int, data: bytes) -> bytes:
    """Sends bytes and returns all that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def got(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Answer(await sent(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()))


def admin_port(app: App) -> int:
    assert app.admin is not None
    return app.admin.port


async def ready(port: int) -> tuple[int, object]:
    answer = await got(port, "/readyz")
    return answer.status, json.loads(answer.body)


@pytest.mark.asyncio
async def test_a_server_that_starts_lives_and_is_not_ready_until_it_serves() -> None:
    app = build(
        Settings(listen="127.0.0.1:0", transport=CHOSEN, admin_listen=ADMIN, drain_seconds=0), [ScriptedEngine()]
    )
    recovered = asyncio.Event()
    start = app.journal.start

    async def slow(*arguments: object) -> None:
        await recovered.wait()
        await start(*arguments)  # type: ignore[arg-type]

    app.journal.start = slow  # type: ignore[method-assign, assignment]
    stack = serving(app)
    serves = asyncio.create_task(stack.__aenter__())
    await until(lambda: admin_port(app) > 0, "the admin port listens")
    assert (await got(admin_port(app), "/healthz")).status == 200
    told: dict[str, object] = {"ready": False, "reasons": ["starting"], "engines": {"scripted": "ready"}}
    assert await ready(admin_port(app)) == (503, told)
    recovered.set()
    await serves
    assert await ready(admin_port(app)) == (200, READY)
    await stack.__aexit__(None, None, None)


@pytest.mark.asyncio
async def test_a_drain_is_seen_until_the_last_run_has_ended_and_then_nothing_listens() -> None:
    going_on = asyncio.Event()
    engine = ScriptedEngine(script=lambda job: [*words("one")[:-1], WaitFor(going_on), *words(" two")])
    async with leaving(engine, admin_listen=ADMIN, drain_seconds=600) as server:
        port = admin_port(server.service.app)
        assert await ready(port) == (200, READY)
        stream = asyncio.create_task(text_of(server.service.generate.StreamGenerate(GenerateRequest(prompt="hi"))))
        await until(lambda: engine.running == 1, "it runs")
        await server.begin()
        assert await ready(port) == (503, READY | {"ready": False, "reasons": ["draining"]})
        assert (await got(port, "/healthz")).status == 200
        going_on.set()
        assert await stream == "one two"
    with pytest.raises(ConnectionRefusedError):
        await got(port, "/healthz")


@pytest.mark.asyncio
@pytest.mark.parametrize("state", [EngineState.LOADING, EngineState.UNAVAILABLE])
async def test_without_an_engine_that_is_ready_the_server_is_not(state: EngineState) -> None:
    first, second = ScriptedEngine("one"), ScriptedEngine("two")
    async with service(first, second, admin_listen=ADMIN) as running:
        port = admin_port(running.app)
        first.status.set(state)
        states = {"one": state.name.lower(), "two": "ready"}
        assert await ready(port) == (200, {"ready": True, "reasons": [], "engines": states})
        second.status.set(state)
        states["two"] = state.name.lower()
        assert await ready(port) == (503, {"ready": False, "reasons": ["no engine is ready"], "engines": states})
        first.status.set(EngineState.READY)
        assert (await ready(port))[0] == 200


@pytest.mark.asyncio
async def test_an_engine_whose_breaker_is_open_is_not_ready() -> None:
    lost = EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "the engine is lost")
    engine = ScriptedEngine(script=lambda job: [Fail(lost)])
    async with service(engine, admin_listen=ADMIN, failover="none") as running:
        while not running.app.fleet.places.closed(engine):
            await running.generate.Generate(GenerateRequest(prompt="hi")).code()
        told = {"ready": False, "reasons": ["no engine is ready"], "engines": {"scripted": "resting"}}
        assert await ready(admin_port(running.app)) == (503, told)


@pytest.mark.asyncio
async def test_every_other_path_and_method_is_refused_and_head_has_no_body() -> None:
    async with service(admin_listen=ADMIN) as running:
        port = admin_port(running.app)
        for path in ("/healthz", "/readyz", "/healthz?verbose=1"):
            full, head = await got(port, path), await got(port, path, "HEAD")
            assert (head.status, head.body, bool(full.body)) == (200, b"", True)
            assert head.headers["Content-Length"] == full.headers["Content-Length"]
            assert (full.headers["Connection"], full.headers["Cache-Control"]) == ("close", "no-store")
            # Neither Python's version nor the library's.
            assert full.headers["Server"] == "tokenwire"
        for path in ("/", "/healthz/", "/metrics/../readyz", "//readyz", "/%2e%2e/etc/passwd", "/debug"):
            assert (await got(port, path)).status == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            refused = await got(port, "/readyz", method)
            assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
        # Nobody gives metrics to this one.
        assert (await got(port, "/metrics")).status == 404


@asynccontextmanager
async def alone(scrape: Exposition | None = None) -> AsyncIterator[AdminPort]:
    """Runs an admin port without a server."""
    readiness = Readiness(lambda: {"scripted": "ready"})
    readiness.phase = Phase.SERVING
    async with AdminPort("127.0.0.1", 0, readiness, scrape) as admin:
        yield admin


@pytest.mark.asyncio
async def test_metrics_are_scraped_as_they_are_asked_for() -> None:
    async def scrape(accept: str) -> tuple[bytes, str]:
        return accept.encode(), "text/plain; version=0.0.4; charset=utf-8"

    async with alone(scrape) as admin:
        answer = await got(admin.port, "/metrics", Accept="application/openmetrics-text")
        assert (answer.status, answer.body) == (200, b"application/openmetrics-text")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await got(admin.port, "/metrics", "HEAD")).body == b""


@pytest.mark.asyncio
async def test_a_scrape_that_fails_or_takes_too_long_is_an_error_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(accept: str) -> tuple[bytes, str]:
        raise ValueError("secret")

    async def endless(accept: str) -> tuple[bytes, str]:
        await asyncio.Event().wait()
        raise AssertionError

    with structlog.testing.capture_logs() as logged:
        async with alone(broken) as admin:
            answer = await got(admin.port, "/metrics")
            assert (answer.status, answer.body) == (500, b"internal error\n")
            assert (await got(admin.port, "/readyz")).status == 200
    assert [line["event"] for line in logged] == ["bug"]
    monkeypatch.setattr(port_module, "SCRAPE_SECONDS", 0.01)
    async with alone(endless) as admin:
        assert (await got(admin.port, "/metrics")).status == 503


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n" * 2000,
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(5000)) + b"\r\n",
    b"GET /healthz HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.asyncio
async def test_garbage_harms_nobody_and_writes_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(port_module, "CONNECTION_SECONDS", 1.0)
    with structlog.testing.capture_logs() as logged:
        async with alone() as admin:
            answers = await asyncio.gather(*(sent(admin.port, data) for data in GARBAGE))
            assert not any(answer.startswith(b"HTTP/1.1 5") for answer in answers)
            assert (await got(admin.port, "/healthz")).status == 200
    assert not logged
    assert not caplog.records


STUCK = [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"]


@pytest.mark.asyncio
async def test_who_neither_asks_nor_reads_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "CONNECTION_SECONDS", 2.0)

    async def large(accept: str) -> tuple[bytes, str]:
        return b"x" * 20_000_000, "text/plain"

    async with alone(large) as admin:
        held = [await asyncio.open_connection("127.0.0.1", admin.port, limit=1) for _ in STUCK]
        for (_, writer), data in zip(held, STUCK, strict=True):
            writer.write(data)
        # Others are served meanwhile.
        assert (await got(admin.port, "/healthz")).status == 200
        assert len(admin._connections) == len(STUCK)
        await until(lambda: not admin._connections, "they are left")
        for _, writer in held:
            writer.transport.abort()


@pytest.mark.asyncio
async def test_too_many_connections_are_closed_at_once_and_the_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(port_module, "CONNECTIONS_MAX", 3)
    async with alone() as admin:
        held = [await asyncio.open_connection("127.0.0.1", admin.port) for _ in range(3)]
        await until(lambda: len(admin._connections) == 3, "they are there")
        assert await sent(admin.port, b"") == b""
        reader, writer = held.pop()
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"ok\n")
        writer.close()
        await until(lambda: len(admin._connections) == 2, "one has left")
        assert (await got(admin.port, "/healthz")).status == 200
        for _, writer in held:
            writer.transport.abort()


@pytest.mark.asyncio
async def test_an_address_that_is_taken_is_said() -> None:
    async with alone() as admin:
        with pytest.raises(AdminError, match=f"cannot listen on 127.0.0.1:{admin.port}: Address already in use"):
            async with AdminPort("127.0.0.1", admin.port, Readiness(dict), None):
                pass
        done = await tokenwire(*SERVE, "--admin-listen", f"127.0.0.1:{admin.port}")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("tokenwire: admin port: cannot listen on 127.0.0.1:")
    assert "--admin-listen" in done.err


SERVE = ("serve", "--engine", "scripted", "--listen", "127.0.0.1:0", "--log-level", "error")


@pytest.mark.asyncio
async def test_serve_says_where_it_listens_and_prometheus_reads_what_happened() -> None:
    async with begun(*SERVE, "--admin-listen", ADMIN, "--drain-seconds", "1") as process:
        assert process.stdout is not None
        address, engine, admin = [(await process.stdout.readline()).decode().split()[-1] for _ in range(3)]
        assert engine == "ready"
        port = int(admin.removeprefix("127.0.0.1:"))
        assert await ready(port) == (200, READY)
        assert (await tokenwire("generate", "hi", "--max-tokens", "3", "--target", address)).code == 0
        metrics = await got(port, "/metrics")
        assert metrics.status == 200
        assert b'service_name="tokenwire"' in metrics.body
        process.send_signal(signal.SIGTERM)
        done = await outcome(process)
    assert (done.code, done.err) == (0, "")


@pytest.mark.asyncio
async def test_nothing_listens_unless_it_is_asked_for() -> None:
    async with service() as running:
        assert running.app.admin is None
