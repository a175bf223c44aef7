"""A client in a process of its own, to be frozen or killed: streams one answer, and prints a line for each message."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub


@asynccontextmanager
async def reading_client(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts the client, yields it once it has read its first message, and kills it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(port),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "service")},
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline(), "the client could not read anything"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def main(port: int) -> None:
    """Streams an answer to its end."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        async for event in GenerateServiceStub(channel).StreamGenerate(GenerateRequest(prompt="hi")):
            print(event.WhichOneof("event"), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
