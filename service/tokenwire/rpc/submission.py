"""From a request to its run: joined, or rendered and accepted."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from tokenwire.dispatch.fields import check_fields, refused_field
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.observer import Joining
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Envelope, Phase, Progress
from tokenwire.domain.request import Submission, engine_fields
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState
from tokenwire.journal.journal import RequestTakenError
from tokenwire.render.renderer import Renderer
from tokenwire.rpc.share import share_of
from tokenwire.transport.call import Call, Kind

# How often a request is tried whose id another server takes at the same time.
TAKEN_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How long a call waits for a model that is being loaded, and how often it hears so, in seconds."""

    limit: float
    interval: float = 1.0


class Submitter:
    """Finds or starts the run of a request."""

    def __init__(self, fleet: Fleet, runs: Runs, renderer: Renderer, loading: Loading) -> None:
        self._fleet = fleet
        self._runs = runs
        self._renderer = renderer
        self._loading = loading

    async def submit(self, submission: Submission, call: Call) -> Run:
        """Returns the run, accepted. A refusal makes no run."""
        _check_policy(submission)
        if not submission.run.request_id:
            return await self._start(submission, call)
        for _ in range(TAKEN_MAX):
            # Another server of the same journal may be faster; then its run is there to be joined.
            with suppress(RequestTakenError):
                return await self._joined(submission, call)
        raise TokenwireError(
            Code.UNAVAILABLE,
            "REQUEST_ID_BUSY",
            "other servers accept the same request id",
            retryable=True,
            retry_after=1.0,
        )

    async def loaded(self, engine: Engine, call: Call) -> None:
        """Waits while the engine loads its model; a stream hears of it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._loading.limit
        while engine.status.state is EngineState.LOADING:
            if loop.time() >= deadline:
                raise TokenwireError(
                    Code.UNAVAILABLE,
                    "MODEL_LOADING",
                    "the model is still being loaded",
                    retryable=True,
                    retry_after=5.0,
                )
            if call.kind is Kind.SERVER_STREAM:
                waited = int((self._loading.limit - (deadline - loop.time())) * 1000)
                await call.write(Envelope(Progress(phase=Phase.LOADING), START, waited))
                if engine.status.state is not EngineState.LOADING:
                    break
            try:
                async with asyncio.timeout(min(self._loading.interval, deadline - loop.time())):
                    await engine.status.changed()
            except TimeoutError:
                continue

    async def _joined(self, submission: Submission, call: Call) -> Run:
        async with self._runs.claim(submission, call.context) as existing:
            if existing is not None:
                self._runs.observer.joins(existing, Joining.SUBMIT, submission.after)
                return existing
            return await self._start(submission, call)

    async def _start(self, submission: Submission, call: Call) -> Run:
        self._runs.refuse_while_draining()
        streamed, asked = call.kind is Kind.SERVER_STREAM, tuple(engine_fields(submission))
        route = await self._fleet.route(
            submission.model, lambda engine: refused_field(asked, engine, streamed=streamed) is None
        )
        engine = route.engine
        check_fields(asked, engine, streamed=streamed)
        if engine.status.state is EngineState.LOADING:
            await self.loaded(engine, call)
        engine.vet(submission if submission.model == route.model else replace(submission, model=route.model))
        model = engine.status.model(route.model)
        prompt = await self._renderer.render(submission, engine, model)
        share = share_of(submission, prompt, model, engine.default_max_tokens)
        return await self._runs.accept(submission, prompt, route, share, call.context)


def _check_policy(submission: Submission) -> None:
    if submission.limits.allow_partial:
        raise InvalidRequestError("limits.allow_partial", "is not in this version", reason="FEATURE_UNSUPPORTED")
