"""The least that a gateway on grpc.aio can do: an engine's tokens in, one message each out.

No validation, no journal, no resume, no limits, no telemetry, no errors worth the name. It is what grpc.aio and Python
cost by themselves, with everything that is known to help: uvloop, a parser of its own for the engine's stream, messages
merged when several tokens have come. `python -m bench.gateways.bare PORT ENGINE_PORT`.
"""

import asyncio
import sys
from typing import Any

import grpc
import msgspec
import uvloop
from grpc import aio

from tokenwire.v1 import event_pb2, generate_service_pb2

_METHOD = "StreamGenerate"
_SERVICE = "tokenwire.v1.GenerateService"


class _Choice(msgspec.Struct, gc=False):
    text: str = ""


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Chunk).decode


class _Stream(asyncio.Protocol):
    """One request to the engine. Reads server-sent events out of the chunks as they stand: one event is one line."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self._waiter: asyncio.Future[None] | None = None
        self.tokens: list[str] = []
        self.done = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self.tokens += [choice.text for choice in _decode(line[6:]).choices]
            elif line.startswith(b"data: [DONE]"):
                self.done = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.done = True
        self._wake()

    async def take(self) -> list[str]:
        """Returns what has come; none at the end."""
        while not self.tokens and not self.done:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        tokens, self.tokens = self.tokens, []
        return tokens

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _request(asked: generate_service_pb2.GenerateRequest, port: int) -> bytes:
    body = msgspec.json.encode({"prompt": asked.prompt, "max_tokens": asked.stopping.max_tokens, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def _serve(port: int, engine_port: int) -> None:
    loop = asyncio.get_running_loop()

    async def generate(asked: Any, context: Any) -> None:
        request = _request(asked, engine_port)
        transport, stream = await loop.create_connection(lambda: _Stream(request), "127.0.0.1", engine_port)
        seq = sent = count = 0
        try:
            while tokens := await stream.take():
                text = "".join(tokens)
                seq += 1
                event = event_pb2.Event()
                event.cursor.seq = seq
                event.delta.text = text
                event.delta.byte_offset = sent
                event.delta.token_offset = count
                event.delta.token_count = len(tokens)
                sent, count = sent + len(text), count + len(tokens)
                await context.write(event)
        finally:
            transport.close()

    server = aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 4096)])
    handler = grpc.unary_stream_rpc_method_handler(
        generate,
        request_deserializer=generate_service_pb2.GenerateRequest.FromString,
        response_serializer=event_pb2.Event.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
