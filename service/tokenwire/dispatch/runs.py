"""All runs of this process: found by id, joined by request id, ended when nobody reads, forgotten after a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog

from tokenwire.dispatch.dispatcher import Dispatcher
from tokenwire.dispatch.ending import cancelled_in_advance
from tokenwire.dispatch.fleet import Route
from tokenwire.dispatch.run import Run, StopCause
from tokenwire.domain.context import Clock, RequestContext
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import RunOptions, Submission
from tokenwire.journal.journal import Journal

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long runs live, in seconds.

    Args:
        orphan_grace: without a reader, where the request does not say.
        orphan_grace_max: the most a request may ask for.
        retention: after the end.
        max_duration: in all, at most.
        cancelled_ids: how many request ids that were cancelled in advance are kept for a tenant; 0: such a cancel finds
            nothing.
        stop: that an engine may take to stop a run; it is then torn out of it.
    """

    orphan_grace: float
    orphan_grace_max: float
    retention: float
    max_duration: float
    cancelled_ids: int
    stop: float


class _Turn:
    """Submits of one request id wait here for the one that is being accepted."""

    __slots__ = ("callers", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.callers = 0


class Runs:
    """The runs of this process. A request id names its latest run, within a tenant."""

    def __init__(
        self, dispatcher: Dispatcher, journal: Journal, lifetimes: Lifetimes, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._lifetimes = lifetimes
        self._clock = clock
        self._new_id = new_id
        self._by_id: dict[str, Run] = {}
        self._by_request: dict[tuple[str, str], Run] = {}
        self._accepting: dict[tuple[str, str], _Turn] = {}
        self._forgetting: dict[str, asyncio.TimerHandle] = {}
        self._cancelled: dict[tuple[str, str], Run] = {}
        self._draining = False

    @asynccontextmanager
    async def claim(self, submission: Submission, context: RequestContext) -> AsyncIterator[Run | None]:
        """Yields the run that the request must join, or None if it may start one.

        While the block runs, another submit of the same request id waits, so that both find one run.
        """
        key = (context.tenant, submission.run.request_id)
        if not key[1]:
            yield None
            return
        turn = self._accepting.setdefault(key, _Turn())
        turn.callers += 1
        try:
            async with turn.lock:
                existing = self._by_request.get(key)
                if existing is not None and existing.stopped is not None:
                    # What it ends with decides whether the request joins it.
                    await existing.finished(2 * self._lifetimes.stop)
                yield self._joinable(key, submission)
        finally:
            turn.callers -= 1
            if not turn.callers:
                del self._accepting[key]

    def accept(self, submission: Submission, prompt: Prompt, route: Route, share: int, context: RequestContext) -> Run:
        """Starts a run. Raises RESOURCE_EXHAUSTED if the journal has no room for it, UNAVAILABLE while draining."""
        self.refuse_while_draining()
        key = (context.tenant, submission.run.request_id)
        if key in self._cancelled:
            # Cancelled while its prompt was rendered.
            return self._cancelled[key]
        run = self._open(submission, prompt, route, share, context)
        loop = asyncio.get_running_loop()
        run.start(self._lifetimes.retention)
        run.task = loop.create_task(self._execute(run), name=f"run {run.id}")
        asked = (submission.limits.max_duration, route.max_duration, self._lifetimes.max_duration)
        limit = min(seconds for seconds in asked if seconds is not None)
        run.duration_timer = loop.call_later(limit, run.stop, StopCause.TIME_LIMIT)
        return run

    def get(self, tenant: str, *, run_id: str = "", request_id: str = "") -> Run:
        """Returns a run by its id, or the latest one of a request id. Raises NotFoundError."""
        run = self._by_id.get(run_id) if run_id else self._by_request.get((tenant, request_id))
        if run is None or run.tenant != tenant:
            raise NotFoundError("run", run_id or request_id, "the run does not exist, or is forgotten")
        return run

    def list(self, tenant: str) -> list[Run]:
        """Returns a tenant's runs, newest first."""
        return [run for run in reversed(self._by_id.values()) if run.tenant == tenant]

    @contextmanager
    def reading(self, run: Run) -> Iterator[None]:
        """Counts a reader; when the last one leaves, the run's grace begins."""
        run.readers += 1
        if run.grace_timer is not None:
            run.grace_timer.cancel()
            run.grace_timer = None
        try:
            yield
        finally:
            run.readers -= 1
            if run.readers == 0 and run.end is None and run.grace is not None:
                if run.grace > 0:
                    loop = asyncio.get_running_loop()
                    run.grace_timer = loop.call_later(run.grace, run.stop, StopCause.ORPHANED)
                else:
                    run.stop(StopCause.ORPHANED)

    async def cancel(self, context: RequestContext, *, run_id: str = "", request_id: str = "") -> Run:
        """Ends a run as cancelled and returns it once it has ended, or its engine has been given up.

        A request id that names no run is cancelled in advance: later submits find a run that has ended.
        """
        try:
            run = self.get(context.tenant, run_id=run_id, request_id=request_id)
        except NotFoundError:
            if not request_id or not self._lifetimes.cancelled_ids:
                raise
            return self._cancel_in_advance(context, request_id)
        if run.error is not None and (context.tenant, request_id) in self._accepting:
            # It failed, and a submit that would start the next one is under way.
            return self._cancel_in_advance(context, request_id)
        run.stop(StopCause.CANCEL)
        await run.finished(2 * self._lifetimes.stop)
        return run

    def refuse_while_draining(self) -> None:
        """Raises UNAVAILABLE once the server shuts down."""
        if self._draining:
            raise TokenwireError(
                Code.UNAVAILABLE, "DRAINING", "the server is shutting down", retryable=True, retry_after=1.0
            )

    async def drain(self, seconds: float) -> None:
        """Accepts no more runs, lets the running ones go on for so many seconds, then ends them as shut down."""
        self._draining = True
        tasks = [run.task for run in self._by_id.values() if run.task is not None and not run.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for run in self._by_id.values():
            run.stop(StopCause.SHUTDOWN)
        left = [task for task in tasks if not task.done()]
        if left:
            _, hanging = await asyncio.wait(left, timeout=2 * self._lifetimes.stop)
            if hanging:
                _log.error("engines hang while they are stopped", runs=len(hanging))

    def close(self) -> None:
        """Forgets every run; none may be running."""
        for timer in self._forgetting.values():
            timer.cancel()
        for run in list(self._by_id.values()):
            self._forget(run)

    async def _execute(self, run: Run) -> None:
        try:
            await self._dispatcher.execute(run)
        finally:
            for timer in (run.duration_timer, run.grace_timer, run.stop_timer):
                if timer is not None:
                    timer.cancel()
            # An engine that could not be stopped may outlive the server's own stop.
            if run.id in self._by_id:
                self._ended(run)

    def _open(
        self, submission: Submission, prompt: Prompt, route: Route | None, share: int, context: RequestContext
    ) -> Run:
        run_id = self._new_id()
        log = self._journal.open(run_id, share)
        run = Run(
            id=run_id,
            tenant=context.tenant,
            model=route.model if route else "",
            submission=submission,
            prompt=prompt,
            engine=route.engine if route else None,
            log=log,
            share=share,
            grace=self._grace(submission.run),
            stop_seconds=self._lifetimes.stop,
            received_at=context.received_at,
            clock=self._clock,
        )
        self._by_id[run_id] = run
        if run.request_id:
            self._by_request[context.tenant, run.request_id] = run
        return run

    def _grace(self, options: RunOptions) -> float | None:
        if options.detached:
            return None
        asked = self._lifetimes.orphan_grace if options.orphan_grace is None else options.orphan_grace
        return min(asked, self._lifetimes.orphan_grace_max)

    def _joinable(self, key: tuple[str, str], submission: Submission) -> Run | None:
        run = self._by_request.get(key)
        if run is None:
            if submission.after is not None:
                raise NotFoundError("run", key[1], "the run does not exist, or is forgotten")
            return None
        if key in self._cancelled:
            return run
        if run.submission.fingerprint != submission.fingerprint:
            raise TokenwireError(
                Code.ALREADY_EXISTS,
                "REQUEST_ID_TAKEN",
                "run.request_id: another request has this id",
                resource=("request", key[1]),
            )
        if run.error is not None and submission.after is None:
            return None
        return run

    def _cancel_in_advance(self, context: RequestContext, request_id: str) -> Run:
        kept = [key for key in self._cancelled if key[0] == context.tenant]
        if kept and len(kept) >= self._lifetimes.cancelled_ids:
            self._forget(self._cancelled[kept[0]])
        submission = Submission(run=RunOptions(request_id=request_id))
        run = self._open(submission, Prompt(), None, 1024, context)
        self._cancelled[context.tenant, request_id] = run
        run.stopped = StopCause.CANCEL
        run.start(self._lifetimes.retention)
        run.log.append(cancelled_in_advance(), 0)
        self._ended(run)
        return run

    def _ended(self, run: Run) -> None:
        retention = self._lifetimes.retention
        run.ended_at = self._clock.wall()
        run.expires_at = run.ended_at + retention
        run.let_go()
        self._journal.settle(run.id)
        self._forgetting[run.id] = asyncio.get_running_loop().call_later(retention, self._forget, run)

    def _forget(self, run: Run) -> None:
        timer = self._forgetting.pop(run.id, None)
        if timer is not None:
            timer.cancel()
        self._by_id.pop(run.id, None)
        key = (run.tenant, run.request_id)
        if self._by_request.get(key) is run:
            del self._by_request[key]
        if self._cancelled.get(key) is run:
            del self._cancelled[key]
        self._journal.forget(run.id)
