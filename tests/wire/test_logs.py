"""The log of a whole server as it is written: every line of an RPC tells which one, and no line what it was about."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.chosen_transport import CHOSEN
from harness.command_line import environment, outcome

MARKER = "my-secret-prompt"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

PROGRAM = """
import asyncio, logging, sys
import grpc, structlog, uvloop
from tokenwire.app import build
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.scripted import Fail, Pause, ScriptedEngine, words
from tokenwire.server import serving
from tokenwire.settings import Settings
from tokenwire.telemetry.logs import configure_logs
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
MARKER, PARENT, TRANSPORT = sys.argv[1:]

def script(job):
    logging.getLogger("a.library").warning("chatter")
    asyncio.get_running_loop().call_soon(lambda: logging.getLogger("a.library").warning("later"))
    structlog.get_logger().info("ours")
    match (job.prompt.text or "").split()[-1]:
        case "bug":
            raise ValueError(MARKER)
        case "fails":
            return [*words(MARKER)[:-1], Fail(EngineError(Code.UNAVAILABLE, "ENGINE_LOST", MARKER))]
        case "breaks":
            return [*words(MARKER)[:-1], Fail(KeyError(MARKER))]
        case "pauses":
            return [Pause(None)]
    return words(MARKER)

async def main():
    settings = Settings(listen="127.0.0.1:0", transport=TRANSPORT, failover="none", drain_seconds=0)
    app = build(settings, [ScriptedEngine(script=script)])
    async with serving(app) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = GenerateServiceStub(channel)
        async def ask(kind, **options):
            request = GenerateRequest(prompt=f"{MARKER} {kind}", **options)
            timeout = 0.5 if kind == "pauses" else 20
            metadata = (("traceparent", PARENT), ("x-key", MARKER))
            return await stub.Generate(request, timeout=timeout, metadata=metadata).code()
        print(*[(await ask(kind)).name for kind in ("works", "bug", "fails", "breaks", "pauses")], flush=True)
        print((await ask("works", model=MARKER)).name, flush=True)
        # What nobody waits for is told by asyncio.
        async def lost():
            raise ValueError(MARKER)
        task = asyncio.ensure_future(lost())
        await asyncio.wait([task])
        del task

configure_logs(level=LEVEL, log_format="json")
uvloop.run(main())
"""


async def logged(level: str) -> tuple[str, list[dict[str, Any]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", PROGRAM.replace("LEVEL", repr(level)), MARKER),
        f"00-{TRACE}-{PARENT}-01",
        CHOSEN,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    done = await outcome(process)
    assert (done.code, done.out) == (0, "OK INTERNAL DATA_LOSS INTERNAL DEADLINE_EXCEEDED\nNOT_FOUND\n"), done.err
    return done.err, [json.loads(line) for line in done.err.splitlines()]


@pytest.mark.asyncio
@pytest.mark.parametrize("level", ["info", "debug"])
async def test_every_line_of_an_rpc_tells_its_id_and_its_trace_and_none_what_was_said(level: str) -> None:
    text, lines = await logged(level)
    rpcs = [line for line in lines if line["event"] == "rpc"]
    assert len(rpcs) == 6
    ids = {line["rpc_id"] for line in rpcs}
    assert len(ids) == 6
    within = [line for line in lines if line["event"] in ("rpc", "bug", "chatter", "later", "ours")]
    assert {line["event"] for line in within} >= {"rpc", "chatter", "later", "ours"}
    for line in within:
        assert line["rpc_id"] in ids
        assert line["trace_id"] == TRACE
        assert len(line["span_id"]) == 16
    bugs = [line for line in lines if "exception" in line]
    assert {"ValueError", "KeyError"} <= {line["exception"].splitlines()[-1] for line in bugs}
    assert any(line["event"] == "Task exception was never retrieved" for line in lines)
    for secret in (MARKER, "127.0.0.1", str(Path.cwd()), sys.prefix, "/home", "/work"):
        assert secret not in text
