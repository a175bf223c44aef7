"""One reader's stream: what a view shows goes out, and so does all that a reader hears beside it."""

import asyncio
import json

from google.protobuf.json_format import MessageToDict

from tokenwire.delivery.view import View
from tokenwire.dispatch.run import Run
from tokenwire.domain.cursor import Cursor
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.domain.events import Detached, DetachReason, Envelope, Event, Heartbeat, Phase, Progress
from tokenwire.domain.generation import PrefillProgress
from tokenwire.rpc.events import to_cursor
from tokenwire.rpc.watch import Watch
from tokenwire.transport.call import Call


class Stream:
    """One reader's stream.

    Nearly every message is new text alone. It is written where it is committed, while the task sleeps: waking a task,
    through all that stands around a call, costs more than the rest of the way. Anything else wakes it.

    Args:
        run: what is read.
        view: how far, and how.
        resume_within: seconds for which the run waits for a reader that is sent away.

    Attributes:
        cursor: what the client has for sure; the view is ahead of it while a message is written.
    """

    __slots__ = (
        "_again",
        "_call",
        "_failure",
        "_idle",
        "_loop",
        "_resume_within_ms",
        "_run",
        "_view",
        "_waiter",
        "_watch",
        "_writing",
        "cursor",
    )

    def __init__(self, run: Run, view: View, resume_within: float) -> None:
        self.cursor = view.cursor
        self._run = run
        self._view = view
        self._resume_within_ms = int(resume_within * 1000)
        self._loop = asyncio.get_running_loop()
        self._call: Call | None = None
        self._watch: Watch | None = None
        # What the task waits for while it has nothing to do.
        self._waiter: asyncio.Future[None] | None = None
        self._idle = False
        # What is being written without the task; whether there was a change meanwhile; and why it failed.
        self._writing: Envelope | None = None
        self._again = False
        self._failure: BaseException | None = None

    async def write_to(self, call: Call, watch: Watch) -> None:
        """Writes until the end of the run, watched. Raises UNAVAILABLE after `detached`."""
        run, view = self._run, self._view
        self._call, self._watch = call, watch
        run.log.listen(self._changed)
        told: PrefillProgress | None = None
        try:
            while True:
                for envelope in view.take():
                    await watch.write(envelope)
                    self.cursor = envelope.cursor
                if view.ended:
                    return
                # What was appended while we wrote is there already.
                if view.behind:
                    continue
                if run.handed_over is not None:
                    refusal = detached(run, self.cursor)
                    await watch.write(self._aside(self._farewell(run.handed_over)))
                    raise refusal
                prefill = run.writer.prefill
                if prefill is not None and prefill is not told:
                    told = prefill
                    await watch.write(self._aside(_prefill(prefill)))
                    continue
                news = await watch.change(self._news)
                self._idle = False
                if self._failure is not None:
                    raise self._failure
                if not news:
                    await watch.write(self._aside(Heartbeat()))
        finally:
            run.log.unlisten(self._changed)
            self._idle = False

    def _news(self) -> asyncio.Future[None]:
        self._idle, self._again = True, False
        self._waiter = self._loop.create_future()
        return self._waiter

    def _changed(self) -> None:
        """Hears that something was committed, or that something else happened to the run."""
        if self._writing is not None:
            self._again = True
            return
        if not self._idle or self._waiter is None or self._waiter.done():
            return
        newest = self._view.newest() if self._run.handed_over is None else None
        call, watch = self._call, self._watch
        if newest is None or call is None or watch is None:
            self._wake()
            return
        self._writing = newest
        watch.began, watch.count = self._loop.time(), call.messages + 1
        try:
            call.begin_write(newest, self._written)
        except Exception as error:
            self._written(error)

    def _written(self, failure: BaseException | None) -> None:
        written, self._writing = self._writing, None
        if failure is not None:
            self._failure = failure
            self._wake()
            return
        assert written is not None
        self.cursor = written.cursor
        # The task sleeps until this write is over: neither news nor a heartbeat wakes it before.
        if self._again:
            self._again = False
            self._changed()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def slow_consumer(self) -> TokenwireError:
        """Returns what a client is told that did not read.

        There is no `detached` before it: grpc takes no further message while it cannot get rid of the last one.
        """
        return TokenwireError(
            Code.ABORTED,
            "SLOW_CONSUMER",
            "the client did not read for too long; the run goes on, and can be read on from the cursor",
            retryable=True,
            metadata=place(self._run, self.cursor) | {"resume_within_ms": str(self._resume_within_ms)},
        )

    def _farewell(self, reason: DetachReason) -> Detached:
        retry_after_ms = int(_RETRY_SECONDS[reason] * 1000)
        return Detached(reason=reason, resume_within_ms=self._resume_within_ms, retry_after_ms=retry_after_ms)

    def _aside(self, event: Event) -> Envelope:
        """Wraps an event that is not in the journal."""
        return Envelope(event, self.cursor, self._run.elapsed_ms())


# Between `detached` and another attempt: at a drain, until nobody listens here any more.
_RETRY_SECONDS = {DetachReason.DRAINING: 1.0, DetachReason.MOVED: 0.1}
_MESSAGES = {
    DetachReason.DRAINING: "the server is shutting down; the run goes on, and can be read on from the cursor",
    DetachReason.MOVED: "another server goes on with the run; it can be read on from the cursor",
}


def _prefill(read: PrefillProgress) -> Progress:
    return Progress(
        phase=Phase.PREFILL,
        prefill_total=read.prompt_tokens,
        prefill_cached=read.cached_tokens,
        prefill_done=read.done_tokens,
    )


def detached(run: Run, cursor: Cursor) -> TokenwireError:
    """Returns what a reader is told whose run goes on elsewhere."""
    assert run.handed_over is not None
    return TokenwireError(
        Code.UNAVAILABLE,
        run.handed_over.name,
        _MESSAGES[run.handed_over],
        retryable=True,
        retry_after=_RETRY_SECONDS[run.handed_over],
        metadata=place(run, cursor),
    )


def place(run: Run, cursor: Cursor) -> dict[str, str]:
    """Returns the details that say where a reader stands."""
    exact: dict[str, object] = {"seq": cursor.seq}
    if cursor.ahead or cursor.epoch is not None:
        exact = MessageToDict(to_cursor(cursor))
    return {"run_id": run.id, "cursor": json.dumps(exact)}
