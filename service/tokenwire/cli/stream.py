"""Prints one answer, and leaves it as its run deserves."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from google.protobuf.json_format import MessageToJson
from grpc.aio import AioRpcError

from tokenwire.cli.connection import Connection
from tokenwire.cli.printing import Output
from tokenwire.cli.rpc_failure import broken, failure_of
from tokenwire.cli.saying import say
from tokenwire_client import AsyncStream, BrokenError, Failure, TokenwireClientError
from tokenwire_client.aio.stream import OnReconnect

# After its cancellation a run's last events are there at once, or do not come.
LAST_EVENTS_SECONDS = 1.0


class Answer:
    """One answer, as far as it was read.

    Args:
        connection: the connection to the server.
        stream: makes the stream; its argument is to hear of new attempts.
        output: where the events go.
        stays: how people name the run, if it is to go on when they leave; empty: it is cancelled then.
    """

    def __init__(
        self, connection: Connection, stream: Callable[[OnReconnect], AsyncStream], output: Output, *, stays: str = ""
    ) -> None:
        self._connection = connection
        self._stream = stream(self._reconnects)
        self._output = output
        self._stays = stays
        self._leaving: asyncio.Task[bool] | None = None
        self._events = 0

    @property
    def text(self) -> str:
        """The first choice, as far as it was read."""
        return self._stream.text

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
        # In a task of its own, so that the last events can be read after Ctrl-C.
        reader = asyncio.create_task(self._follow())
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
        if isinstance(error, TokenwireClientError):
            raise failure_of(
                error, self._connection.target, answered=self._events > 0, hint=self._resume_hint(error)
            ) from None
        if isinstance(error, KeyboardInterrupt):
            # It has ended the loop's run already; once more would end the next one.
            raise asyncio.CancelledError
        if error is not None:
            raise error

    async def _follow(self) -> None:
        async with self._stream as stream:
            async for event in stream:
                self._events += 1
                self._output.event(event)

    async def _leave_once(self) -> bool:
        """Tells whether the run ends now."""
        if self._stream.end is not None:
            return True
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
        # Whoever is cancelled while waiting must not cancel it.
        return await asyncio.shield(self._leaving)

    async def _leave(self) -> bool:
        run = self._stays
        if run:
            say(f"the run goes on; to follow it: tokenwire runs attach {run}; to stop it: tokenwire runs cancel {run}")
            return False
        try:
            await self._stream.cancel()
        except AioRpcError as error:
            say(f"the server could not be told to stop ({error.code().name}); without a reader the run ends by itself")
            return False
        return True

    def _reconnects(self, attempt: int, failure: Failure, seconds: float) -> None:
        if attempt == 1:
            self._output.note(f"{broken(failure)}; going on")

    def _resume_hint(self, error: TokenwireClientError) -> str:
        # Every other run that is ours was cancelled when it was left.
        lives = isinstance(error, BrokenError) or self._stays
        if self._stream.end is not None or self._leaving or not error.run_id or not lives:
            return ""
        after = MessageToJson(error.cursor, preserving_proto_field_name=True, indent=None) if error.cursor else "{}"
        return f"To go on: tokenwire runs attach {error.run_id} --after '{after.replace(' ', '')}'"


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
