"""A run, read by a thread."""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from tokenwire.v1.event_pb2 import Event, Progress
from tokenwire.v1.run_pb2 import Run
from tokenwire.v1.run_service_pb2 import CancelRunRequest
from tokenwire_client.core.answer import Result
from tokenwire_client.core.failure import Failure, silence
from tokenwire_client.core.following import Again, Following, Request
from tokenwire_client.core.policy import Policy
from tokenwire_client.core.reading import Reading
from tokenwire_client.sync.watchdog import Watchdog, Watched
from tokenwire_client.wire import failure_of

# After `end` the status is there at once, or does not come; all has been said.
LAST_WORD_SECONDS = 1.0

OnProgress = Callable[[Progress], None]
# The attempt's number, how the line ended, and the seconds until the attempt.
OnReconnect = Callable[[int, Failure, float], None]


class Stream(Reading):
    """The events of one run, in order, each once, whatever becomes of the line.

    Used with `with`, by one thread; the call is made when the block is entered. Leaving the block before the run's end
    cancels the run on the server, unless it was begun elsewhere or is `detached`. Iterating gives the events of the
    contract, without heartbeats; `pieces` gives the text alone. Ctrl-C interrupts a wait.

    Raises, while it is iterated: RefusedError, RunFailedError, BrokenError, IntegrityError, OverdueError.
    """

    def __init__(
        self,
        following: Following,
        *,
        call: Callable[[Request, float | None], Any],
        cancel: Callable[[CancelRunRequest, float], Run],
        policy: Policy,
        watchdog: Watchdog,
        sleep: Callable[[float], None],
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> None:
        super().__init__(following)
        self._make_call = call
        self._cancel = cancel
        self._policy = policy
        self._watchdog = watchdog
        self._sleep = sleep
        self._on_progress = on_progress
        self._on_reconnect = on_reconnect
        self._call: Any = None
        self._watched: Watched | None = None
        self._entered = False
        self._told = False
        self._over = False

    def __enter__(self) -> Self:
        """Makes the call."""
        if self._entered:
            raise RuntimeError("a stream is read once; attach to its run to read it again")
        self._entered = True
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancels the run if it has not ended, and drops the call."""
        try:
            request = self._following.cancel
            if request is not None and not self._told:
                with suppress(grpc.RpcError):
                    self._cancel(request, self._policy.leave)
        finally:
            self._over = True
            self._drop()

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> Event:
        """Returns the next event."""
        if not self._entered:
            raise RuntimeError("a stream is read inside `with`")
        while not self._over:
            if self._call is None:
                self._begin()
            try:
                event = self._next()
                new = self._following.add(event) if event is not None else None
            except Exception:
                self._over = True
                raise
            if new is not None:
                if self._on_progress is not None and new.HasField("progress"):
                    self._on_progress(new.progress)
                return new
        raise StopIteration

    def pieces(self, choice: int = 0) -> "Pieces":
        """Iterates over the text of one choice, as it comes."""
        return Pieces(self, choice)

    def result(self) -> Result:
        """Reads to the end and returns the whole answer; a reading that began in the middle has what came since."""
        for _ in self:
            pass
        return self._following.result()

    def cancel(self) -> Run:
        """Ends the run; the stream goes on to its end. Raises grpc.RpcError if the server cannot be told."""
        # Leaving need not tell it once more.
        self._told = True
        return self._cancel(self._following.cancelling, self._policy.leave)

    def _begin(self) -> None:
        self._call = self._make_call(self._following.request, self._following.time_left)
        self._watched = self._watchdog.watch(self._call, self._policy.silence)

    def _next(self) -> Event | None:
        """Returns the next event of the call, or None once the call has ended, and what follows was seen to."""
        watched = self._watched
        assert watched is not None, "every call is watched"
        if self._following.ended:
            self._watchdog.shorten(watched, LAST_WORD_SECONDS)
        watched.waiting()
        failure: Failure | None = None
        try:
            event: Event = next(self._call)
        except StopIteration:
            pass
        except grpc.RpcError as error:
            failure = silence(watched.seconds) if watched.silent else failure_of(error)
        else:
            return event
        finally:
            watched.heard()
        self._drop()
        again = self._following.finished() if failure is None else self._following.failed(failure)
        if again is None:
            self._over = True
        else:
            self._wait(again)
        return None

    def _wait(self, again: Again) -> None:
        if self._on_reconnect is not None:
            self._on_reconnect(again.attempt, again.failure, again.seconds)
        self._sleep(again.seconds)

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if self._watched is not None:
            self._watchdog.forget(self._watched)


class Pieces:
    """The text of one choice, piece by piece."""

    def __init__(self, stream: Stream, choice: int) -> None:
        self._stream = stream
        self._choice = choice

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> str:
        """Returns the next piece."""
        while True:
            event = next(self._stream)
            if event.HasField("delta") and event.delta.choice == self._choice:
                return event.delta.text
