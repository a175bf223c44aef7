"""Reads one answer, and leaves it as its run deserves."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from google.protobuf.json_format import MessageToJson
from grpc import StatusCode
from grpc.aio import AioRpcError

from tokenwire.cli.connection import Connection
from tokenwire.cli.failure import CommandError
from tokenwire.cli.printing import Output
from tokenwire.cli.rpc_failure import failure_of
from tokenwire.cli.verification import Verification
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.run_service_pb2 import CancelRunRequest
from tokenwire.v1.run_service_pb2_grpc import RunServiceStub

CANCEL_SECONDS = 3.0
# After its cancellation a run's last events are there at once, or do not come.
LAST_EVENTS_SECONDS = 1.0

Call = Callable[[], AsyncIterable[Event]]
# Tells whether the run ends now.
Leave = Callable[[], Coroutine[Any, Any, bool]]


class Answer:
    """One answer, as far as it was read.

    Args:
        connection: the connection to the server.
        call: begins the call.
        output: where the events go.
        leave: what to do before a call is dropped whose run has not ended.
        from_start: whether the call reads from the run's start.

    Attributes:
        ended: whether its `end` came.
    """

    def __init__(
        self, connection: Connection, call: Call, output: Output, *, leave: Leave, from_start: bool = True
    ) -> None:
        self.ended = False
        self._connection = connection
        self._call = call
        self._output = output
        self._leave = leave
        self._leaving: asyncio.Task[bool] | None = None
        self._verification = Verification(from_start=from_start)
        self._texts: list[str] = []
        self._run_id = ""
        self._cursor = Cursor()
        self._events = 0

    @property
    def text(self) -> str:
        """The first choice, as far as it was read."""
        return "".join(self._texts)

    def read(self) -> None:
        """Prints the events of the stream until its end.

        Raises CommandError if it fails or is not what the server wrote, and KeyboardInterrupt at Ctrl-C, after the
        server has been told.
        """
        with _terminated_as_interrupted():
            try:
                self._connection.run(self._read())
            except KeyboardInterrupt:
                # The second one does not wait for the output to take what was written.
                self._connection.run(self._leave_once())
                raise

    async def _read(self) -> None:
        # In a task of its own: cancelling the one that reads would drop the call before the server has been told.
        reader = asyncio.create_task(self._follow(self._call()))
        try:
            await asyncio.wait([reader])
        except asyncio.CancelledError:
            if await self._leave_once():
                await asyncio.wait([reader], timeout=LAST_EVENTS_SECONDS)
            raise
        finally:
            if not reader.done():
                reader.cancel()
                await asyncio.wait([reader])
            error = None if reader.cancelled() else reader.exception()
            try:
                self._output.close()
            except BrokenPipeError as gone:
                error = error or gone
            if error is not None and not _is_from_server(error):
                await self._leave_once()
        if isinstance(error, AioRpcError):
            raise failure_of(
                error, self._connection.target, answered=self._events > 0, hint=self._resume_hint()
            ) from None
        if isinstance(error, KeyboardInterrupt):
            # It has ended the loop's run already; once more would end the next one.
            raise asyncio.CancelledError
        if error is not None:
            raise error

    async def _follow(self, events: AsyncIterable[Event]) -> None:
        async for event in events:
            self._events += 1
            self._verification.add(event)
            self._cursor = event.cursor
            if event.HasField("start"):
                self._run_id = event.start.run_id
            elif event.HasField("delta") and event.delta.choice == 0:
                self._texts.append(event.delta.text)
            self._output.event(event)
            if event.HasField("end"):
                self.ended = True
                self._verification.check(event.end)
        if not self.ended:
            raise CommandError("the stream ended without its `end` event: the answer may not be whole")

    async def _leave_once(self) -> bool:
        if self.ended:
            return True
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
        # Whoever is cancelled while waiting must not cancel it.
        return await asyncio.shield(self._leaving)

    def _resume_hint(self) -> str:
        if self.ended or self._leaving or not self._run_id:
            return ""
        after = MessageToJson(self._cursor, preserving_proto_field_name=True, indent=None)
        return f"To go on: tokenwire runs attach {self._run_id} --after '{after.replace(' ', '')}'"


def cancelling(connection: Connection, request_id: str) -> Leave:
    """Returns how to leave a run that nobody else wants: it is cancelled."""

    async def leave() -> bool:
        stub: Any = RunServiceStub(connection.channel)
        try:
            await stub.CancelRun(CancelRunRequest(request_id=request_id), timeout=CANCEL_SECONDS)
        except AioRpcError as error:
            say(f"the server could not be told to stop ({error.code().name}); without a reader the run ends by itself")
            return False
        return True

    return leave


def staying(run: str) -> Leave:
    """Returns how to leave a run that goes on."""

    async def leave() -> bool:
        say(f"the run goes on; to follow it: tokenwire runs attach {run}; to stop it: tokenwire runs cancel {run}")
        return False

    return leave


def say(text: str) -> None:
    """Tells people something beside the output."""
    with suppress(OSError):
        print(f"tokenwire: {text}", file=sys.stderr, flush=True)


def _is_from_server(error: BaseException) -> bool:
    """Whether the server has ended the stream, and so knows."""
    return isinstance(error, AioRpcError) and error.code() is not StatusCode.DEADLINE_EXCEEDED


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Lets SIGTERM, and the closing of the terminal, end the answer as Ctrl-C does."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
