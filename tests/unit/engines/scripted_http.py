"""A small HTTP server on loopback whose every byte is the test's."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Returns data in HTTP's chunk framing."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def reply(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    """Returns a whole plain reply."""
    lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request, the number of its connection, and the means to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def json(self) -> Any:
        """The request's body."""
        return json.loads(self.body)

    async def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Waits until the client closes the connection."""
        try:
            while await self.reader.read(4096):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Breaks the connection off."""
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class ScriptedServer:
    """Runs the script for each request; connections are kept alive while it leaves them open.

    Attributes:
        open: how many connections there are.
        requests: every request so far.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.open = 0
        self.port = 0
        self.requests: list[Exchange] = []
        self._accepted = 0
        self._changed = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The address, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    async def until_open(self, most: int) -> None:
        """Waits until there are at most so many connections."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.open <= most)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.open += 1
        self._accepted += 1
        number = self._accepted
        try:
            while (exchange := await _received(reader, writer, number)) is not None:
                self.requests.append(exchange)
                await self.script(exchange)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client, or the test's end, may come at any byte.
        finally:
            self._connections.discard(task)
            writer.close()
            self.open -= 1
            async with self._changed:
                self._changed.notify_all()

    async def drop_all(self) -> None:
        """Ends every connection."""
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def serving(script: Script, port: int = 0) -> AsyncGenerator[ScriptedServer, None]:
    """Runs a scripted server as long as the block."""
    scripted = ScriptedServer(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", port, backlog=1024)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()
        await scripted.drop_all()
        await server.wait_closed()


def always(answer: bytes) -> Script:
    """Returns a script that sends the same bytes to everybody."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(answer)

    return script


async def _received(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> Exchange | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode().rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Exchange(
        method=method, path=path, headers=headers, body=body, connection=number, reader=reader, writer=writer
    )
