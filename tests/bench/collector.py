"""Takes spans and metrics by OTLP over HTTP, and counts them: `python -m bench.collector PORT`.

It stands in for an OpenTelemetry Collector. What it costs is not the gateway's.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from http import HTTPStatus

COUNTS_PATH = "/counts"
_HEAD_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class Counts:
    """What has come: by kind, requests and their bytes."""

    requests: dict[str, int]
    body_bytes: dict[str, int]

    def add(self, kind: str, size: int) -> None:
        """Counts a request."""
        self.requests[kind] = self.requests.get(kind, 0) + 1
        self.body_bytes[kind] = self.body_bytes.get(kind, 0) + size


class Collector(asyncio.Protocol):
    """One connection: HTTP/1.1 with bodies of a known length, as OTLP exporters send them.

    `POST /v1/KIND` is counted and answered with an empty message; `GET /counts` tells the counts as JSON.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers each request that is whole."""
        self._data += data
        while self._answer_next():
            pass
        if len(self._data) > _HEAD_BYTES_MAX and b"\r\n\r\n" not in self._data:
            self._transport.close()

    def _answer_next(self) -> bool:
        head, end, _ = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        length = int(headers.get("content-length", "0"))
        whole = len(head) + len(end) + length
        if len(self._data) < whole:
            return False
        del self._data[:whole]
        self._answer(first.split(" "), headers, length)
        return True

    def _answer(self, request: list[str], headers: dict[str, str], length: int) -> None:
        body = b""
        status = HTTPStatus.OK
        match request:
            case ["POST", path, _] if path.startswith("/v1/") and "transfer-encoding" not in headers:
                self._counts.add(path.removeprefix("/v1/"), length)
            case ["GET", path, _] if path == COUNTS_PATH:
                body = json.dumps({"requests": self._counts.requests, "bytes": self._counts.body_bytes}).encode()
            case _:
                status = HTTPStatus.NOT_IMPLEMENTED
        kind = "application/json" if body else headers.get("content-type", "application/x-protobuf")
        line = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(line.encode() + body)


async def serve(port: int) -> None:
    """Serves until cancelled."""
    counts = Counts({}, {})
    server = await asyncio.get_running_loop().create_server(lambda: Collector(counts), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
