"""A gateway as a good engineer writes it in an afternoon: the generated servicer, httpx, an async generator.

No journal, no resume, no limits, no telemetry. What is known to help and costs a line is done: uvloop, one client for
all calls, a pool without a bound. What takes a day is not: no parser of its own for the engine's stream, no other
transport under httpx, no merging of messages. `python -m bench.gateways.idiomatic PORT ENGINE_PORT`.
"""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import uvloop
from grpc import aio

from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Delta, Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceServicer, add_GenerateServiceServicer_to_server
from tokenwire.v1.run_pb2 import RunResult

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class GenerateService(GenerateServiceServicer):
    """Streams completions of an engine that speaks OpenAI's API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def Generate(  # noqa: N802
        self, request: GenerateRequest, context: aio.ServicerContext[GenerateRequest, RunResult]
    ) -> RunResult:
        """Refuses: nobody here asks for a whole answer."""
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "answers are streamed")

    async def StreamGenerate(  # noqa: N802
        self, request: GenerateRequest, context: aio.ServicerContext[GenerateRequest, Event]
    ) -> AsyncIterator[Event]:
        """Asks the engine and yields an event for each of its tokens."""
        body = {"prompt": request.prompt, "stream": True}
        if request.model:
            body["model"] = request.model
        if request.stopping.HasField("max_tokens"):
            body["max_tokens"] = request.stopping.max_tokens
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as response:
                if response.is_error:
                    code = _CODES.get(response.status_code, grpc.StatusCode.INTERNAL)
                    await context.abort(code, f"the engine answered with status {response.status_code}")
                seq = sent = 0
                async for text in _texts(response):
                    seq += 1
                    yield Event(
                        cursor=Cursor(seq=seq),
                        delta=Delta(text=text, byte_offset=sent, token_offset=seq - 1, token_count=1),
                    )
                    sent += len(text.encode())
        except httpx.TimeoutException:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the engine takes too long")
        except httpx.TransportError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine cannot be reached")


async def _texts(response: httpx.Response) -> AsyncIterator[str]:
    """Yields the texts of a stream of server-sent events."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event: Any = json.loads(data)
        for choice in event["choices"]:
            if choice["text"]:
                yield choice["text"]


async def serve(port: int, engine_port: int) -> None:
    """Serves until cancelled."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    timeout = httpx.Timeout(5, read=120, pool=None)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{engine_port}", limits=limits, timeout=timeout, trust_env=False
    ) as client:
        server = aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 4096)])
        add_GenerateServiceServicer_to_server(GenerateService(client), server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
