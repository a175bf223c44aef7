"""A batch from its first line to its end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from tokenwire.cli.batch_lines import Line, Lines
from tokenwire.cli.batch_progress import BatchProgress
from tokenwire.cli.batch_results import Results
from tokenwire.cli.connection import Connection
from tokenwire.cli.rpc_failure import broken, failure_of
from tokenwire.cli.saying import say
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchItem, BatchItemDone
from tokenwire.v1.finish_pb2 import STATUS_CODE_INVALID_ARGUMENT, RunError
from tokenwire_client import Failure, TokenwireClientError


class Session:
    """Sends items and takes their results.

    Args:
        connection: the connection to the server.
        lines: the items.
        results: where results go.
        progress: where progress is shown.
        in_flight: how many items at a time; None: as the server likes.
    """

    def __init__(
        self,
        connection: Connection,
        lines: Lines,
        results: Results,
        progress: BatchProgress,
        *,
        in_flight: int | None,
    ) -> None:
        self._connection = connection
        self._lines = lines
        self._results = results
        self._progress = progress
        self._in_flight = in_flight
        self._running = 0
        self._heard = False

    def run(self, *, again: str) -> None:
        """Answers every line.

        Args:
            again: the command that goes on later, if there is one.

        Raises CommandError if the server cannot be reached or refuses, KeyboardInterrupt at Ctrl-C.
        """
        try:
            self._connection.run(self._run(again))
        except KeyboardInterrupt:
            results = self._results
            of = f" of {self._lines.total + results.skipped}" if self._lines.total else ""
            hint = f"; to go on: {again}" if again else ""
            say(f"{results.done + results.skipped}{of} items are done, {results.failed} of them failed{hint}")
            raise
        self._progress.end(self._results.done, self._results.failed, self._results.skipped)

    async def _run(self, again: str) -> None:
        try:
            async with (
                aclosing(self._items()) as items,
                self._connection.client.batch(
                    items,
                    in_flight=self._in_flight,
                    total=self._lines.total,
                    on_event=self._event,
                    on_reconnect=self._reconnects,
                ) as batch,
            ):
                async for _ in batch:
                    pass
        except TokenwireClientError as error:
            hint = f"To go on: {again}" if again else ""
            raise failure_of(error, self._connection.target, answered=self._heard, hint=hint) from None

    async def _items(self) -> AsyncGenerator[BatchItem, None]:
        while (line := await self._lines.next()) is not None:
            if line.item is None:
                self._take(_wrong(line))
            else:
                yield line.item

    def _event(self, event: BatchEvent) -> None:
        self._heard = True
        if event.HasField("progress"):
            self._running = event.progress.running
        self._take(event)

    def _take(self, event: BatchEvent) -> None:
        self._results.event(event)
        self._progress.show(self._results.done, self._results.failed, self._running)

    def _reconnects(self, attempt: int, failure: Failure, seconds: float) -> None:
        self._progress.note(f"{broken(failure)}; trying again")


def _wrong(line: Line) -> BatchEvent:
    error = RunError(code=STATUS_CODE_INVALID_ARGUMENT, reason="INVALID_LINE", message=line.wrong)
    return BatchEvent(item_done=BatchItemDone(item_id=line.item_id, error=error))
