"""A run: one generation, from its acceptance to its end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from tokenwire.dispatch.deadlines import Deadline
from tokenwire.dispatch.observer import UNOBSERVED_RUN, RunObserver
from tokenwire.dispatch.writer import Writer
from tokenwire.domain.context import Clock
from tokenwire.domain.events import DetachReason, End, RunError, Start, Usage
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord


class StopCause(Enum):
    """Why the server ends a run before its engine does."""

    CANCEL = auto()
    TIME_LIMIT = auto()
    ORPHANED = auto()
    SHUTDOWN = auto()
    # Another process, or this one after its restart, goes on with it: no end is written.
    HANDOVER = auto()
    # The journal cannot be written.
    JOURNAL = auto()


class Run:
    """One generation.

    Attributes:
        id: made by the server.
        tenant: whose it is.
        grace: seconds it goes on without a reader; None: to its end.
        readers: how many follow it now.
        kept_until: seconds on the event loop's clock until which it waits at least for a reader that was sent away.
        share: bytes of the journal that are reserved for it.
        accepted_at: monotonic seconds; `received_at` is when the call that began it arrived.
        created_at: wall-clock seconds; `ended_at` and `expires_at` likewise, once it has ended.
        stopped: why the server ends it, once it does.
        here: whether this process writes it, or wrote it to its end; else it follows what another one writes.
        handed_over: why its readers here have to attach again, once this process has let it go.
        traceparent: where it stands in a trace, or empty.
        observer: is told what becomes of it here.
    """

    # With a dictionary of its own a run would take three times the memory.
    __slots__ = (
        "_monotonic",
        "_stop_seconds",
        "accepted_at",
        "attempt",
        "begun",
        "created_at",
        "duration_timer",
        "ended_at",
        "engine",
        "expires_at",
        "grace",
        "grace_timer",
        "handed_over",
        "here",
        "id",
        "kept_until",
        "log",
        "model",
        "observer",
        "prompt",
        "readers",
        "received_at",
        "scheduled_ms",
        "share",
        "stop_timer",
        "stopped",
        "submission",
        "task",
        "tenant",
        "traceparent",
        "writer",
    )

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the field's own name
        tenant: str,
        model: str,
        submission: Submission,
        prompt: Prompt,
        engine: Engine | None,
        log: RunLog,
        share: int,
        grace: float | None,
        stop_seconds: float,
        received_at: float,
        clock: Clock,
        created_at: float | None = None,
        here: bool = True,
        traceparent: str = "",
    ) -> None:
        self.id = id
        self.tenant = tenant
        self.model = model
        self.submission = submission
        self.prompt = prompt
        self.engine = engine
        self.log = log
        self.share = share
        self.grace = grace
        self._stop_seconds = stop_seconds
        self.received_at = received_at
        self.here = here
        self.traceparent = traceparent
        self.observer: RunObserver = UNOBSERVED_RUN
        self.handed_over: DetachReason | None = None
        self.created_at = clock.wall() if created_at is None else created_at
        # Elsewhere, where it was accepted, the clock may be another: no event comes before those that are there.
        age = max(clock.wall() - self.created_at, last_ms(log) / 1000)
        self.accepted_at = clock.monotonic() - age
        self.ended_at: float | None = None
        self.expires_at: float | None = None
        self.readers = 0
        self.kept_until = 0.0
        self.attempt = 0
        self.scheduled_ms = 0
        self.stopped: StopCause | None = None
        self.begun = False
        self.task: asyncio.Task[None] | None = None
        self.grace_timer: asyncio.TimerHandle | None = None
        self.duration_timer: Deadline[Run] | None = None
        self.stop_timer: asyncio.TimerHandle | None = None
        self.writer = self._new_writer()
        self._monotonic: Callable[[], float] = clock.monotonic

    def take_over(self) -> None:
        """Makes this process the run's writer: it goes on after what the log holds now."""
        self.here = True
        self.writer = self._new_writer()

    @property
    def request_id(self) -> str:
        """The id that the client chose, or empty."""
        return self.submission.run.request_id

    @property
    def end(self) -> End | None:
        """The `end` event, once the run has ended."""
        return self.log.end

    @property
    def error(self) -> RunError | None:
        """Why the run failed, if it did."""
        end = self.log.end
        return end.error if end else None

    @property
    def usage(self) -> Usage:
        """The run's tokens so far."""
        end = self.log.end
        return end.usage if end else self.writer.usage()

    def elapsed_ms(self) -> int:
        """Milliseconds since the run was accepted."""
        return int((self._monotonic() - self.accepted_at) * 1000)

    def start(self, retention_seconds: float) -> None:
        """Writes the run's first event."""
        self.log.append(
            Start(
                run_id=self.id,
                request_id=self.request_id,
                model=self.model,
                labels=self.submission.run.labels,
                retention_seconds=int(retention_seconds),
            ),
            0,
        )

    def stop(self, cause: StopCause) -> None:
        """Ends the run; the first cause counts. Its text so far stays readable."""
        if self.stopped is None and not self.log.closed and self.here:
            self.stopped = cause
            # A task that is cancelled before its first step never runs, and would write no end.
            if self.task is not None and self.begun:
                self.task.cancel()
                # An engine that hangs while it is closed is torn out of it.
                self.stop_timer = asyncio.get_running_loop().call_later(self._stop_seconds, self.task.cancel)

    def stop_timers(self) -> None:
        """Calls off what would end the run later."""
        for timer in (self.duration_timer, self.grace_timer, self.stop_timer):
            if timer is not None:
                timer.cancel()

    def let_go(self) -> None:
        """Drops what only the writing of it needed: an ended run is kept for its whole retention."""
        # In its last step, nothing of it waits any more.
        self.task = None
        self.observer = UNOBSERVED_RUN
        self.prompt = Prompt()
        self.submission = replace(self.submission, prompt=None, prompt_ids=(), messages=(), tools=(), constraint=None)

    def _new_writer(self) -> Writer:
        asked, echo = self.submission, (self.prompt.text or "") if self.submission.output.echo else ""
        return Writer(self.log, self.elapsed_ms, asked.n, asked.stopping.max_tokens, echo)

    async def finished(self, seconds: float | None = None) -> bool:
        """Waits until the run's task is done and its end is kept, at most so many seconds; returns whether it is.

        Of a run that another process writes: until its end, or until it can be followed here no longer.
        """
        try:
            async with asyncio.timeout(seconds):
                if self.task is not None:
                    await asyncio.wait([self.task])
                    if not self.log.closed:
                        return True
                while self.end is None and self.handed_over is None:
                    await self.log.changed()
        except TimeoutError:
            return False
        return True


def last_ms(log: RunLog) -> int:
    """Returns when the last event of a log was written, in milliseconds since the run was accepted."""
    times = [log.markers[-1].at_ms] if log.markers else [0]
    return max(times + [channel.at_ms[-1] for channel in log.channels])


def run_of(
    record: RunRecord,
    log: RunLog,
    engine: Engine | None,
    stop_seconds: float,
    received_at: float,
    clock: Clock,
    *,
    here: bool,
) -> Run:
    """Returns the run of a record; arguments as those of Run."""
    return Run(
        id=record.run_id,
        tenant=record.tenant,
        model=record.model,
        submission=record.submission,
        prompt=record.prompt,
        engine=engine,
        log=log,
        share=record.share,
        grace=record.grace,
        stop_seconds=stop_seconds,
        received_at=received_at,
        clock=clock,
        created_at=record.created_at,
        here=here,
        traceparent=record.traceparent,
    )
