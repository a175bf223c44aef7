"""One wheel: without extras it serves a client, and holds what the server needs."""

import asyncio
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from harness.service import service
from tokenwire.engines.scripted import ScriptedEngine, words

ROOT = Path(__file__).parents[2]

CLIENT = """
import asyncio
import sys
import grpc
from tokenwire.v1 import generate_service_pb2, generate_service_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = generate_service_pb2_grpc.GenerateServiceStub(channel)
    stream = stub.StreamGenerate(generate_service_pb2.GenerateRequest(prompt="hi"), timeout=20)
    print("".join(event.delta.text for event in stream), end="")
import tokenwire_client
with tokenwire_client.Client(sys.argv[1]) as client:
    with client.stream("hi") as stream:
        print("|" + "".join(stream.pieces()), end="")
    try:
        client.generate("")
    except tokenwire_client.RefusedError as error:
        print("|" + error.reason, end="")

async def main():
    async with tokenwire_client.AsyncClient(sys.argv[1]) as client:
        print("|" + (await client.generate("hi")).text, end="")

asyncio.run(main())
extra = {"protovalidate", "pydantic", "httpx", "typer", "buf", "google.rpc"} & set(sys.modules)
assert not extra, extra
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_both_packages_and_the_descriptors_and_nothing_beside_it(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "tokenwire/v1/descriptors.binpb" in names
    assert {"tokenwire/py.typed", "tokenwire_client/py.typed"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tokenwire", "tokenwire_client"}


@pytest.fixture(params=["highest", "lowest-direct"])
def python(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Path:
    """Returns the interpreter of an environment that holds the wheel without extras alone."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--system-certs", "--quiet", "--python", str(python)]
    subprocess.run([*install, "--resolution", request.param, str(wheel)], check=True)
    return python


@pytest.mark.asyncio
async def test_a_client_needs_the_wheel_without_extras_alone(python: Path, tmp_path: Path) -> None:
    async with service(ScriptedEngine(script=lambda job: words("Once upon a time"))) as running:
        client = await asyncio.create_subprocess_exec(
            python, "-W", "error", "-c", CLIENT, running.address, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        out, _ = await client.communicate()
    assert client.returncode == 0
    assert out.decode() == "Once upon a time|Once upon a time|INVALID_REQUEST|Once upon a time"


def test_the_command_line_without_its_extra_says_what_to_install(python: Path) -> None:
    done = subprocess.run([python.with_name("tokenwire"), "models"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'tokenwire[server,embedded]'" in done.stderr
