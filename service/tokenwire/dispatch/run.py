"""A run: one generation, from its acceptance to its end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from tokenwire.dispatch.writer import Writer
from tokenwire.domain.context import Clock
from tokenwire.domain.events import End, RunError, Start, Usage
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine
from tokenwire.journal.log import RunLog


class StopCause(Enum):
    """Why the server ends a run before its engine does."""

    CANCEL = auto()
    TIME_LIMIT = auto()
    ORPHANED = auto()
    SHUTDOWN = auto()


class Run:
    """One generation.

    Attributes:
        id: made by the server.
        tenant: whose it is.
        grace: seconds it goes on without a reader; None: to its end.
        readers: how many follow it now.
        share: bytes of the journal that are reserved for it.
        accepted_at: monotonic seconds; `received_at` is when the call that began it arrived.
        created_at: wall-clock seconds; `ended_at` and `expires_at` likewise, once it has ended.
        stopped: why the server ends it, once it does.
    """

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
        self.accepted_at = clock.monotonic()
        self.created_at = clock.wall()
        self.ended_at: float | None = None
        self.expires_at: float | None = None
        self.readers = 0
        self.attempt = 0
        self.scheduled_ms = 0
        self.stopped: StopCause | None = None
        self.begun = False
        self.task: asyncio.Task[None] | None = None
        self.grace_timer: asyncio.TimerHandle | None = None
        self.duration_timer: asyncio.TimerHandle | None = None
        self.stop_timer: asyncio.TimerHandle | None = None
        echo = (prompt.text or "") if submission.output.echo else ""
        self.writer = Writer(log, self.elapsed_ms, submission.n, submission.stopping.max_tokens, echo)
        self._monotonic: Callable[[], float] = clock.monotonic

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
        if self.stopped is None and self.end is None:
            self.stopped = cause
            # A task that is cancelled before its first step never runs, and would write no end.
            if self.task is not None and self.begun:
                self.task.cancel()
                # An engine that hangs while it is closed is torn out of it.
                self.stop_timer = asyncio.get_running_loop().call_later(self._stop_seconds, self.task.cancel)

    def let_go(self) -> None:
        """Drops what only the engine needed: an ended run is kept for its whole retention."""
        self.prompt = Prompt()
        self.submission = replace(self.submission, prompt=None, prompt_ids=(), messages=(), tools=(), constraint=None)

    async def finished(self, seconds: float | None = None) -> bool:
        """Waits until the run's task is done, at most so many seconds; returns whether it is."""
        if self.task is None:
            return True
        done, _ = await asyncio.wait([self.task], timeout=seconds)
        return bool(done)
