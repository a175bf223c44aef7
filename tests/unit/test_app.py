"""What a server is made of."""

import json
import subprocess
import sys

import pytest

from harness.command_line import environment

BUILT = """
import asyncio, json, sys
from tokenwire.app import build
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.settings import Settings
async def main():
    transport = build(Settings(transport=sys.argv[1], reflection=False), [ScriptedEngine()]).transport
    modules = [name for name in sys.modules if "transport" in name]
    print(json.dumps([type(transport).__name__, modules, "grpc" in sys.modules]))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("name", "kind", "other"), [("http2", "Http2Server", "grpc_aio"), ("grpc_aio", "GrpcServer", "http2")]
)
def test_a_server_loads_the_transport_that_its_settings_name_and_no_other(name: str, kind: str, other: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILT, name], env=environment(), capture_output=True, text=True, check=True
    )
    built, modules, grpc = json.loads(done.stdout)
    assert built == kind
    assert f"tokenwire.transport.{name}" in modules
    assert f"tokenwire.transport.{other}" not in modules
    assert grpc == (name == "grpc_aio")
