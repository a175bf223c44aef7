"""All runs of this process: found by id, joined by request id, ended when nobody reads, forgotten after a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager

import structlog

from tokenwire.dispatch.deadlines import Deadline, Deadlines
from tokenwire.dispatch.dispatcher import Dispatcher
from tokenwire.dispatch.ending import cancelled_in_advance
from tokenwire.dispatch.fleet import Route
from tokenwire.dispatch.lifetimes import Lifetimes
from tokenwire.dispatch.observer import UNOBSERVED, UNOBSERVED_RUN, Observer
from tokenwire.dispatch.presence import Presence, Reading
from tokenwire.dispatch.run import Run, StopCause, run_of
from tokenwire.dispatch.turns import Turns
from tokenwire.domain.context import Clock, RequestContext
from tokenwire.domain.errors import Code, NotFoundError, TokenwireError
from tokenwire.domain.events import DetachReason
from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import RunOptions, Submission
from tokenwire.engines.engine import Engine
from tokenwire.journal.journal import Journal, Kept, RequestTakenError
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord

_log = structlog.get_logger()


class Runs:
    """The runs of this process. A request id names its latest run, within a tenant.

    It is the journal's Keeper: the journal hands over runs that were accepted elsewhere, or before a restart.

    Attributes:
        presence: who reads them.
        observer: is told what becomes of them.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: Journal,
        lifetimes: Lifetimes,
        clock: Clock,
        new_id: Callable[[], str],
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._lifetimes = lifetimes
        self._clock = clock
        self._new_id = new_id
        self.observer = observer
        self.presence = Presence(journal, self._forget)
        self._by_id: dict[str, Run] = {}
        self._by_request: dict[tuple[str, str], Run] = {}
        self._accepting = Turns()
        self._durations = Deadlines[Run](lambda run: run.stop(StopCause.TIME_LIMIT))
        self._retentions = Deadlines[Run](self._forget)
        self._forgetting: dict[str, Deadline[Run]] = {}
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
        async with self._accepting.turn(key):
            existing = self._by_request.get(key)
            if existing is None or (existing.error is not None and self._journal.shared):
                # Of one that failed here, another process may have started the next one.
                existing = await self._elsewhere(key[0], "", key[1], submission.after is None) or existing
            if existing is not None and existing.stopped is not None:
                # What it ends with decides whether the request joins it.
                await existing.finished(2 * self._lifetimes.stop)
            yield self._joinable(key, submission)

    async def accept(
        self, submission: Submission, prompt: Prompt, route: Route, share: int, context: RequestContext
    ) -> Run:
        """Starts a run.

        Raises RESOURCE_EXHAUSTED if the journal has no room for it, UNAVAILABLE while draining, RequestTakenError if
        another process has accepted one for the same request id meanwhile.
        """
        self.refuse_while_draining()
        key = (context.tenant, submission.run.request_id)
        if key in self._cancelled:
            # Cancelled while its prompt was rendered.
            return self._cancelled[key]
        asked = (submission.limits.max_duration, route.max_duration, self._lifetimes.max_duration)
        limit = min(seconds for seconds in asked if seconds is not None)
        run = await self._open(submission, prompt, route, share, limit, context)
        run.start(self._lifetimes.retention)
        self._begin(run, limit)
        if key in self._cancelled or self._draining:
            # That came while the journal was opened.
            run.stop(StopCause.CANCEL if key in self._cancelled else StopCause.SHUTDOWN)
            if key not in self._cancelled:
                # It ends with an error, so that the request may begin anew elsewhere.
                await run.finished(2 * self._lifetimes.stop)
                self.refuse_while_draining()
        return run

    def get(self, tenant: str, *, run_id: str = "", request_id: str = "") -> Run:
        """Returns a run that is known here, by its id, or the latest one of a request id. Raises NotFoundError."""
        run = self._here(tenant, run_id, request_id)
        if run is None:
            raise NotFoundError("run", run_id or request_id, "the run does not exist, or is forgotten")
        return run

    async def find(self, tenant: str, *, run_id: str = "", request_id: str = "") -> Run:
        """Returns a run of any process. Raises NotFoundError, DATA_LOSS if its whole journal was lost."""
        run = self._here(tenant, run_id, request_id)
        if run is None:
            run = await self._elsewhere(tenant, run_id, request_id)
        return run or self.get(tenant, run_id=run_id, request_id=request_id)

    def list(self, tenant: str) -> list[Run]:
        """Returns a tenant's runs that are known here, newest first."""
        runs = [run for run in reversed(self._by_id.values()) if run.tenant == tenant]
        return sorted(runs, key=lambda run: -run.created_at)

    async def known(self, tenant: str) -> Sequence[str]:
        """Returns the ids of a tenant's runs of all processes, newest first."""
        here = self.list(tenant)
        elsewhere = await self._journal.known(tenant)
        missing = set(elsewhere)
        return [*(run.id for run in here if run.id not in missing), *elsewhere]

    def reading(self, run: Run) -> AbstractContextManager[Reading]:
        """Counts a reader; when the last one leaves, the run's grace begins."""
        return self.presence.reading(run)

    async def cancel(self, context: RequestContext, *, run_id: str = "", request_id: str = "") -> Run:
        """Ends a run as cancelled and returns it once it has ended, or its engine has been given up.

        A request id that names no run is cancelled in advance: later submits find a run that has ended.
        """
        try:
            run = await self.find(context.tenant, run_id=run_id, request_id=request_id)
        except NotFoundError:
            if not request_id or not self._lifetimes.cancelled_ids:
                raise
            return await self._cancel_in_advance(context, request_id)
        if run.error is not None and (context.tenant, request_id) in self._accepting:
            # It failed, and a submit that would start the next one is under way.
            return await self._cancel_in_advance(context, request_id)
        if not run.here and run.end is None:
            await self._journal.cancel(run.id)
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
        """Accepts no more runs, lets the running ones go on for so many seconds, then ends them as shut down.

        Those that outlive this process are handed over instead, and their readers told to attach again.
        """
        self._draining = True
        tasks = [run.task for run in self._by_id.values() if run.task is not None and not run.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        cause = StopCause.HANDOVER if self._journal.durable else StopCause.SHUTDOWN
        left = [run for run in self._by_id.values() if not run.log.closed or not run.here]
        for run in left:
            run.stop(cause)
        tasks = [task for task in tasks if not task.done()]
        if tasks:
            _, hanging = await asyncio.wait(tasks, timeout=2 * self._lifetimes.stop)
            if hanging:
                _log.error("engines hang while they are stopped", runs=len(hanging))
        if self._journal.durable:
            await self._journal.hand_over([run.id for run in left if run.here and not run.log.closed])
            for run in left:
                if not run.log.closed:
                    _let_go(run, DetachReason.DRAINING)

    async def close(self) -> None:
        """Forgets every run; none may be running."""
        self._durations.close()
        self._retentions.close()
        await self.presence.close()
        for run in list(self._by_id.values()):
            self._forget(run)

    def restore(self, kept: Kept) -> None:
        """See Keeper."""
        run = self._by_id.get(kept.record.run_id) or self._take(kept, here=True)
        run.here = True
        self._ended(run, kept.ended_at)

    def take_over(self, kept: Kept) -> None:
        """See Keeper."""
        run = self._by_id.get(kept.record.run_id)
        if run is None or run.log is not kept.log:
            run = self._take(kept, here=True)
        run.take_over()
        run.observer = self.observer.takes_over(run)
        run.traceparent = run.observer.traceparent
        self._begin(run, kept.record.max_duration - (self._clock.wall() - kept.record.created_at))
        self.presence.alone(run, self._lifetimes.resume)

    def lose(self, run_id: str) -> None:
        """See Keeper."""
        run = self._by_id.get(run_id)
        if run is not None:
            run.stop(StopCause.HANDOVER)
            _let_go(run, DetachReason.MOVED)
            if run.task is None or run.task.done():
                self._forget(run)

    def fail(self, run_id: str) -> None:
        """See Keeper."""
        run = self._by_id.get(run_id)
        if run is not None:
            run.stop(StopCause.JOURNAL)

    def cancel_here(self, run_id: str) -> None:
        """See Keeper."""
        run = self._by_id.get(run_id)
        if run is not None:
            run.stop(StopCause.CANCEL)

    def unattended(self, run_id: str) -> None:
        """See Keeper."""
        run = self._by_id.get(run_id)
        if run is not None and run.here:
            self.presence.alone(run)

    def _over(self, run: Run) -> None:
        """Hears that nothing more is written here."""
        run.stop_timers()
        # An engine that could not be stopped may outlive the server's own stop.
        if self._by_id.get(run.id) is run and run.log.closed:
            self._ended(run)
        elif self._by_id.get(run.id) is run and run.handed_over is not None:
            self._forget(run)

    def _begin(self, run: Run, limit: float) -> None:
        loop = asyncio.get_running_loop()
        run.observer.accepted(run)
        run.task = loop.create_task(self._dispatcher.execute(run, self._over), name=f"run {run.id}")
        run.duration_timer = self._durations.set(loop.time() + max(0.0, limit), run)

    async def _open(
        self,
        submission: Submission,
        prompt: Prompt,
        route: Route | None,
        share: int,
        limit: float,
        context: RequestContext,
    ) -> Run:
        key = (context.tenant, submission.run.request_id)
        before = self._by_request.get(key)
        run_id = self._new_id()
        observer = self.observer.begins(run_id, route.model, submission) if route else UNOBSERVED_RUN
        record = RunRecord(
            run_id=run_id,
            tenant=context.tenant,
            model=route.model if route else "",
            submission=submission,
            prompt=prompt,
            share=share,
            grace=self._grace(submission.run),
            created_at=self._clock.wall(),
            max_duration=limit,
            retention=self._lifetimes.retention,
            traceparent=observer.traceparent,
        )
        log = await self._journal.open(record, before.id if before is not None and before.error is not None else "")
        run = self._add(record, log, route.engine if route else None, context.received_at, here=True)
        run.observer = observer
        return run

    def _add(self, record: RunRecord, log: RunLog, engine: Engine | None, received_at: float, *, here: bool) -> Run:
        times = (self._lifetimes.stop, received_at, self._clock)
        run = run_of(record, log, engine, *times, here=here)
        self._by_id[run.id] = run
        latest = self._by_request.get((run.tenant, run.request_id))
        if run.request_id and (latest is None or latest.created_at <= run.created_at):
            self._by_request[run.tenant, run.request_id] = run
        return run

    def _take(self, kept: Kept, *, here: bool) -> Run:
        age = self._clock.wall() - kept.record.created_at
        return self._add(kept.record, kept.log, None, self._clock.monotonic() - age, here=here)

    def _here(self, tenant: str, run_id: str, request_id: str) -> Run | None:
        run = self._by_id.get(run_id) if run_id else self._by_request.get((tenant, request_id))
        if run is None or run.tenant != tenant or run.handed_over is DetachReason.MOVED:
            return None
        return run

    async def _elsewhere(self, tenant: str, run_id: str, request_id: str, accepting: bool = False) -> Run | None:
        kept = await self._journal.find(tenant, run_id=run_id, request_id=request_id, accepting=accepting)
        if kept is None:
            return None
        # Another call may have found it at the same time, or it was taken over by this process meanwhile.
        run = self._by_id.get(kept.record.run_id)
        if run is None or run.handed_over is not None:
            run = self._take(kept, here=False)
            run.ended_at = kept.ended_at
            self.presence.alone(run)
        return run

    def _grace(self, options: RunOptions) -> float | None:
        if options.detached:
            return None
        asked = self._lifetimes.orphan_grace if options.orphan_grace is None else options.orphan_grace
        return min(asked, self._lifetimes.orphan_grace_max)

    def _joinable(self, key: tuple[str, str], submission: Submission) -> Run | None:
        run = self._by_request.get(key)
        if run is None or run.handed_over is not None:
            if submission.after is not None:
                raise NotFoundError("run", key[1], "the run does not exist, or is forgotten")
            return None
        if not run.submission.fingerprint:
            # Cancelled before it was asked for, by whatever process: nobody knows the request.
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

    async def _cancel_in_advance(self, context: RequestContext, request_id: str) -> Run:
        kept = [key for key in self._cancelled if key[0] == context.tenant]
        if kept and len(kept) >= self._lifetimes.cancelled_ids:
            self._forget(self._cancelled[kept[0]])
        submission = Submission(run=RunOptions(request_id=request_id))
        try:
            run = await self._open(submission, Prompt(), None, 1024, 0.0, context)
        except RequestTakenError:
            # A submit was faster.
            return await self.cancel(context, request_id=request_id)
        self._cancelled[context.tenant, request_id] = run
        run.stopped = StopCause.CANCEL
        run.start(self._lifetimes.retention)
        run.log.append(cancelled_in_advance(), 0)
        self._ended(run)
        return run

    def _ended(self, run: Run, ended_at: float | None = None) -> None:
        run.ended_at = self._clock.wall() if ended_at is None else ended_at
        run.expires_at = run.ended_at + self._lifetimes.retention
        run.let_go()
        if ended_at is None:
            self._journal.settle(run.id, run.ended_at)
        left = max(0.0, run.expires_at - self._clock.wall())
        self._forgetting[run.id] = self._retentions.set(asyncio.get_running_loop().time() + left, run)

    def _forget(self, run: Run) -> None:
        if run.grace_timer is not None:
            run.grace_timer.cancel()
        key = (run.tenant, run.request_id)
        for known in (self._by_request, self._cancelled):
            if known.get(key) is run:
                del known[key]
        if self._by_id.get(run.id) is not run:
            return  # It was let go, and is there again as another process writes it.
        if run.id in self._forgetting:
            self._forgetting.pop(run.id).cancel()
        del self._by_id[run.id]
        self._journal.forget(run.id)


def _let_go(run: Run, reason: DetachReason) -> None:
    """Sends a run's readers away; they attach again where it goes on."""
    run.handed_over = reason
    run.log.notify()
