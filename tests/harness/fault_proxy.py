"""A TCP proxy between a client and a server that breaks as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class FaultProxy:
    """Hands bytes on in both directions, until it is told to swallow them.

    Attributes:
        port: where clients connect.
        swallowed: how many bytes went nowhere: more than none once the fault has had an effect.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.swallowed = 0
        self._target = target
        self._black_hole = False
        self._tasks: set[asyncio.Task[None]] = set()

    def black_hole(self) -> None:
        """From now on nothing arrives on either side, and no connection ends: the network between them is gone."""
        self._black_hole = True

    async def cut(self) -> None:
        """Breaks every connection there is; new ones are served."""
        await self._close()

    def lead(self, target: int) -> None:
        """From now on new connections go to the server at another port."""
        self._target = target

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="fault proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, far_writer))
                group.create_task(self._copy(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.close()
                with suppress(ConnectionError):
                    await one.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._black_hole:
                    self.swallowed += len(data)
                    continue
                writer.write(data)
                await writer.drain()
        if not self._black_hole:
            writer.close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def fault_proxy(target: int) -> AsyncIterator[FaultProxy]:
    """Stands before the server at port `target` while the block runs."""
    proxy = FaultProxy(target)
    server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy._close()
        await server.wait_closed()
