"""Lets engines write a run: one, or one after another."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import structlog

from tokenwire.dispatch.attempt import Attempt, Silence
from tokenwire.dispatch.carried import refused_anywhere
from tokenwire.dispatch.continuation import NotContinuableError, Planner, Render, UnfitError
from tokenwire.dispatch.course import Course
from tokenwire.dispatch.deadlines import Deadlines
from tokenwire.dispatch.ending import end_of, failure, stopped_error
from tokenwire.dispatch.fields import answers_whole, refused_field
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.observer import AttemptObserver
from tokenwire.dispatch.place import Place
from tokenwire.dispatch.places import Wish
from tokenwire.dispatch.run import Run, StopCause
from tokenwire.dispatch.tries import OVERLOADED, Again, Failover, again_after
from tokenwire.dispatch.watchdog import Watchdog
from tokenwire.domain.errors import Code, EngineError, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Continuation, RunError
from tokenwire.domain.generation import Job, Prompt
from tokenwire.domain.request import FailoverPolicy, Submission
from tokenwire.engines.engine import Engine
from tokenwire.engines.failure import GATEWAY_EXHAUSTED
from tokenwire.journal.journal import Journal

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an engine may be silent where a request does not say, and how long it may take to stop, in seconds."""

    first_token: float
    stall: float
    stop: float = 5.0


class Dispatcher:
    """Has a run written by an engine, by further ones where one fails, and writes its end, whatever happens.

    Args:
        fleet: the engines.
        journal: has the room that runs grow into.
        patience: for engines that are silent.
        render: renders prompts, for an engine other than the one for which the run was accepted.
        failover: what happens to runs whose engine failed.
        rng: for pauses.
    """

    def __init__(
        self,
        fleet: Fleet,
        journal: Journal,
        patience: Patience,
        render: Render,
        failover: Failover | None = None,
        rng: Random | None = None,
    ) -> None:
        self._fleet = fleet
        self._places = fleet.places
        self._journal = journal
        self._patience = patience
        self._render = render
        self._failover = failover or Failover()
        self._rng = rng or Random()
        self._deadlines = Deadlines(Watchdog.look)
        self._planner = Planner(fleet.engine, render, fleet.agreement)

    async def execute(self, run: Run, over: Callable[[Run], None] = lambda run: None) -> None:
        """Brings a run to its end. Returns when the engine has stopped and `end` is written.

        A log that has text already is gone on with. Of a run that is handed over no end is written. Whatever happens,
        `over` is called last: one more coroutine around this one would take 300 bytes as long as the run lasts.
        """
        observer = run.observer
        # The task has a context of its own: every line that is written on its way tells the run.
        structlog.contextvars.bind_contextvars(run_id=run.id)
        error: RunError | None = None
        try:
            run.begun = True
            if run.stopped is not None:
                raise asyncio.CancelledError
            course = self._course(run)
            # Not in a coroutine of its own: each that waits takes some 300 bytes.
            while run.writer.open_choices:
                place = await self._seat(run, course)
                written = _written(run)
                try:
                    with place:
                        await self._attempt(run, course, place)
                except (NotContinuableError, UnfitError, TokenwireError) as problem:
                    self._weigh(run, course, place.engine, problem, written)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if run.stopped is None or task is None:
                error = _INTERNAL
                raise
            task.uncancel()
        except TokenwireError as caught:
            constrained = run.submission.constraint is not None
            error = failure(caught, wrote_text=run.writer.wrote_text, constrained=constrained)
        except Exception:
            _log.exception("run failed by a bug", run_id=run.id)
            error = _INTERNAL
        finally:
            if run.stopped is not None:
                # Whatever an engine does while it is being stopped, this is why the run ends.
                error = stopped_error(run.stopped, wrote_text=run.writer.wrote_text)
            try:
                if run.stopped is not StopCause.HANDOVER:
                    run.log.append(end_of(run, error), run.elapsed_ms())
            finally:
                observer.ended()
                over(run)

    async def close(self) -> None:
        """Ends what is under way beside the runs."""
        await self._fleet.agreement.close()

    def _course(self, run: Run) -> Course:
        course = Course.of(run, self._failover, self._places.now, self._rng)
        run.attempt = max(run.attempt, run.writer.attempt)
        if run.writer.wrote_text and not run.writer.done:
            self._check_goes_on(run, course)
        return course

    async def _attempt(self, run: Run, course: Course, place: Place) -> None:
        engine = place.engine
        try:
            if run.writer.wrote_text or run.log.choice_ends:
                await self._go_on(run, course, place)
                return
            asked = await self._rendered(run, course, engine)
            with self._observed(run, course, engine, Continuation.FIRST, asked, run.prompt.tokens) as observed:
                await self._new_attempt(run, course, place, observed).first(
                    Job(
                        run_id=run.id,
                        model=run.model,
                        submission=asked,
                        prompt=run.prompt,
                        headers=observed.headers,
                    )
                )
            place.verdict.finish()
        except InvalidRequestError as error:
            if engine is course.rendered_by and not run.writer.wrote_text:
                # The engine for which the run was accepted: the request itself is at fault.
                raise
            raise UnfitError(error.violations[0].field) from error
        except EngineError as error:
            self._tell_breaker(run, course, place, error)
            raise

    async def _go_on(self, run: Run, course: Course, place: Place) -> None:
        engine = place.engine
        plan = await self._planner.plan(run, engine, streamed=course.streamed, rendered=course.rendered_by is not None)
        if plan.ended:
            run.writer.write(plan.ended, run.attempt)
        if plan.strands:
            by = plan.by if run.writer.wrote_text else Continuation.FIRST
            counts = [strand.job.prompt.tokens for strand in plan.strands]
            tokens = None if None in counts else sum(count or 0 for count in counts)
            asked = plan.strands[0].job.submission
            with self._observed(run, course, engine, by, asked, tokens) as observed:
                for strand in plan.strands:
                    strand.job = replace(strand.job, headers=observed.headers)
                attempt = self._new_attempt(run, course, place, observed)
                await attempt.going_on(plan.strands, plan.by, plan.again)
            place.verdict.finish()

    def _observed(
        self, run: Run, course: Course, engine: Engine, by: Continuation, asked: Submission, tokens: int | None
    ) -> AttemptObserver:
        return run.observer.attempt(engine, by, asked, tokens, streamed=not answers_whole(course.asked, engine))

    def _new_attempt(self, run: Run, course: Course, place: Place, observed: AttemptObserver) -> Attempt:
        # No closures: they live as long as the attempt, and take twice the memory.
        return Attempt(
            run,
            place,
            self._silence(run, course, place.engine),
            grow=partial(self._grow, run),
            answered=partial(self._answered, run, place, observed),
            deadlines=self._deadlines,
        )

    async def _rendered(self, run: Run, course: Course, engine: Engine) -> Submission:
        """Returns what the engine is asked for, and sees to it that the prompt is rendered for it."""
        if engine is not course.rendered_by or course.tries.last is not None:
            # One that has failed may have come back as another one.
            model = engine.status.model(run.model)
            asked = replace(run.submission, model=run.model)
            engine.vet(asked)
            run.prompt = await self._render(asked, engine, model)
            run.writer.echo = (run.prompt.text or "") if run.submission.output.echo else ""
            course.rendered_by = engine
        window = engine.status.model(run.model).context_window
        return _with_limit(run.submission, run.prompt, engine.default_max_tokens, window)

    async def _seat(self, run: Run, course: Course) -> Place:
        """Waits until an engine can be tried. Raises the last failure if none can be in time."""
        tries = course.tries
        candidates = self._candidates(run, course)
        if not candidates and self._fleet.models().get(run.model):
            raise course.nobody_left()
        first_token = None if run.writer.wrote_text else course.first_token_left()
        if first_token is not None and first_token <= 0:
            raise course.nobody_left(late=True)
        avoid = tries.avoid
        pause = 0.0
        if tries.last is not None:
            free_elsewhere = any(self._places.free(one) for one in candidates if one.name not in avoid)
            pause = tries.pause(elsewhere=free_elsewhere)
        if not avoid and not run.writer.wrote_text and course.rendered_by is not None:
            # Another one would have to render the prompt once more.
            avoid = frozenset(one.name for one in self._fleet.engines if one is not course.rendered_by)
        seconds = tries.left if first_token is None else min(tries.left, first_token)
        late = seconds == first_token
        wish = Wish(
            candidates=lambda: self._candidates(run, course),
            choices=len(run.writer.open_choices),
            goes_on=run.attempt > 0,
            avoid=avoid,
            begins=self._places.now() + pause if pause else -math.inf,
            not_before=tries.not_before,
            patient=tries.last is None and not late,
            waits=run.observer.queued,
        )
        place: Place | None = None
        try:
            place = await self._places.take(wish, max(0.0, seconds))
        except TimeoutError:
            raise course.nobody_left(late=late) from None
        finally:
            run.observer.seated(place.engine if place is not None else None)
        return place

    def _candidates(self, run: Run, course: Course) -> Sequence[Engine]:
        engines = self._fleet.models().get(run.model, ())
        if course.policy is FailoverPolicy.NONE and course.rendered_by is not None:
            engines = [one for one in engines if one is course.rendered_by]
        engines = [one for one in engines if one.name not in course.tries.out]
        if run.writer.wrote_text:
            return engines
        asked, streamed = course.asked, course.streamed
        # The one for which the run was accepted takes it.
        return [
            one for one in engines if one is course.rendered_by or refused_field(asked, one, streamed=streamed) is None
        ]

    def _check_goes_on(self, run: Run, course: Course) -> None:
        """Raises if a run with text is not gone on with, whatever the engine."""
        if course.policy is not FailoverPolicy.CONTINUE:
            raise course.refused("run.failover")
        field = refused_anywhere(run.submission, run.log)
        if field is not None:
            raise course.refused(field)

    def _weigh(self, run: Run, course: Course, engine: Engine, problem: Exception, written: int) -> None:
        """Raises if an attempt's problem is the run's; else it is tried again. `written`: events before the attempt."""
        if isinstance(problem, NotContinuableError):
            raise course.refused(problem.field) from problem
        if isinstance(problem, UnfitError):
            course.tries.leave_out(engine, problem.field)
        elif isinstance(problem, TokenwireError):
            if _written(run) > written:
                course.tries.progressed(_written(run) - written)
            self._judge(run, course, engine, problem, written)

    def _judge(self, run: Run, course: Course, engine: Engine, error: TokenwireError, written: int) -> None:
        """Raises if a failure is the run's; else it is tried again."""
        if error.code is Code.INVALID_ARGUMENT and (course.tries.last is not None or written):
            # Another engine has taken the request.
            course.tries.leave_out(engine, next((one.field for one in error.violations), "request"))
            return
        if again_after(error) is Again.NEVER or course.policy is FailoverPolicy.NONE:
            raise error
        course.tries.failed(error, engine)
        if error.reason in OVERLOADED and error.retry_after:
            self._places.rest(engine, error.retry_after)
        if run.writer.wrote_text:
            self._check_goes_on(run, course)
        if course.tries.used_up:
            raise error

    def _tell_breaker(self, run: Run, course: Course, place: Place, error: EngineError) -> None:
        name = place.engine.name
        if error.reason in OVERLOADED or error.code is Code.INVALID_ARGUMENT:
            # Whoever refuses is alive.
            place.verdict.answer()
            return
        if error.reason == GATEWAY_EXHAUSTED:
            # Nothing was asked of the engine.
            return
        if error.reason == "FIRST_TOKEN_TIMEOUT":
            # The last engine of a model is not shut out for being slow, and a request's own limit proves nothing.
            last = len(self._fleet.models().get(run.model, ())) < 2
            if last or run.submission.limits.first_token_timeout is not None:
                return
        place.verdict.fail(counts=name not in course.blamed)
        course.blamed |= {name}

    def _answered(self, run: Run, place: Place, observed: AttemptObserver) -> None:
        observed.first_token()
        place.verdict.answer()
        if len(self._fleet.models().get(run.model, ())) > 1:
            self._fleet.agreement.learn(place.engine)

    def _grow(self, run: Run) -> None:
        self._journal.extend(run.id, 2 * run.share)
        run.share *= 2

    def _silence(self, run: Run, course: Course, engine: Engine) -> Silence:
        limits, first_token = run.submission.limits, self._patience.first_token
        if not run.writer.wrote_text:
            left = course.first_token_left()
            if left is not None:
                first_token = max(0.0, left)
            elif answers_whole(course.asked, engine):
                first_token = _UNBOUNDED_SECONDS
        stall = limits.stall_timeout or self._patience.stall
        return Silence(first_token=first_token, stall=stall, stop=self._patience.stop)


_INTERNAL = RunError(code=Code.INTERNAL, reason="INTERNAL", message="internal error")

# Of an answer that comes as a whole the run's own limit is the bound.
_UNBOUNDED_SECONDS = 30 * 86_400.0


def _written(run: Run) -> int:
    """Returns how many events with text there are."""
    return sum(len(channel.seqs) for channel in run.log.channels)


def _with_limit(submission: Submission, prompt: Prompt, default: int | None, window: int | None) -> Submission:
    """Gives the request the engine's default for its tokens, and no more than the window has room for.

    Of a limit beyond the window some engines make an error, others less in silence; so none of them sees one.
    """
    asked = submission.stopping.max_tokens
    limit = default if asked is None else asked
    if limit is not None and window is not None and prompt.tokens is not None:
        limit = max(1, min(limit, window - prompt.tokens))
    if limit == asked:
        return submission
    return replace(submission, stopping=replace(submission.stopping, max_tokens=limit))
