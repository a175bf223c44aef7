"""A TCP proxy between a client and a server that breaks as it is told, and says whether it did."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TypeVar

from harness.line_faults import BlackHole, CutError, Flow, LineFault, Way

READ_BYTES = 65536
Fault = TypeVar("Fault", bound=LineFault)


class FaultProxy:
    """Hands bytes on in both directions, with faults or without.

    Attributes:
        port: where clients connect.
        address: the same as a target.
        cuts: how many connections `cut` has broken.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.cuts = 0
        self._cut = False
        self._target = target
        self._faults: list[LineFault] = []
        self._set: list[LineFault] = []
        self._black_hole: BlackHole | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def swallowed(self) -> int:
        """How many bytes went nowhere: more than none once the black hole has had an effect."""
        return self._black_hole.swallowed if self._black_hole is not None else 0

    def add(self, fault: Fault) -> Fault:
        """From now on every byte goes through a fault, after those that are there, on old connections and new ones."""
        self._faults.append(fault)
        self._set.append(fault)
        return fault

    def mend(self) -> None:
        """From now on there is no fault; but a connection with a hole in it carries nothing any more."""
        self._faults.clear()

    def black_hole(self) -> BlackHole:
        """From now on nothing arrives on either side, and no connection ends: the network between them is gone."""
        self._black_hole = self.add(BlackHole())
        return self._black_hole

    async def cut(self) -> None:
        """Breaks every connection there is; new ones are served."""
        self._cut = True
        self.cuts += len(self._tasks)
        await self._close()

    def lead(self, target: int) -> None:
        """From now on new connections go to the server at another port."""
        self._target = target

    @property
    def idle(self) -> Sequence[str]:
        """The faults that were set and never had an effect."""
        idle = [fault.name for fault in self._set if not fault.fired]
        return [*idle, "cut"] if self._cut and not self.cuts else idle

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="fault proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Of a task that is cancelled before its first step nothing else would close it.
        task.add_done_callback(lambda task: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except ConnectionError:
            # The server is away: so is the proxy, as far as its client can see.
            writer.transport.abort()
            return
        writers = (writer, far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, far_writer, Way.UP, writers))
                group.create_task(self._copy(far_reader, writer, Way.DOWN, writers))
        finally:
            for one in writers:
                one.close()
            for one in writers:
                with suppress(ConnectionError):
                    await one.wait_closed()

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Way,
        both: Sequence[asyncio.StreamWriter],
    ) -> None:
        flows: dict[int, Flow] = {}
        hole: LineFault | None = None
        carried = 0
        try:
            while data := await reader.read(READ_BYTES):
                faults = [(fault, flows.setdefault(id(fault), Flow(way, carried))) for fault in self._faults]
                hole = next((fault for fault, _ in faults if isinstance(fault, BlackHole)), hole)
                if hole is not None and hole not in self._faults:
                    # What comes after bytes that went nowhere is never read.
                    faults = [(hole, flows[id(hole)])]
                async with aclosing(_through(faults, data)) as parts:
                    async for part in parts:
                        if writer.is_closing():
                            # The other way of this connection was cut.
                            raise CutError
                        writer.write(part)
                        await writer.drain()
                        # So that slices are sent one by one.
                        await asyncio.sleep(0)
                carried += len(data)
        except ConnectionError:
            pass
        except CutError:
            for one in both:
                one.transport.abort()
        if not any(fault is self._black_hole for fault in self._faults):
            writer.close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _through(faults: Sequence[tuple[LineFault, Flow]], data: bytes) -> AsyncGenerator[bytes, None]:
    if not faults:
        yield data
        return
    fault, flow = faults[0]
    async with aclosing(fault.through(data, flow)) as parts:
        async for part in parts:
            async with aclosing(_through(faults[1:], part)) as rest:
                async for one in rest:
                    yield one
    flow.carried += len(data)


@asynccontextmanager
async def fault_proxy(target: int, *, strict: bool = True) -> AsyncIterator[FaultProxy]:
    """Stands before the server at port `target` while the block runs.

    Fails if a fault was set and never fired, unless it is not `strict`: where chance sets them.
    """
    proxy = FaultProxy(target)
    server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy._close()
        await server.wait_closed()
    assert not (strict and proxy.idle), f"faults were set and never fired: {proxy.idle}"
