"""From a request to its run: joined, or rendered and accepted."""

import asyncio
from dataclasses import dataclass, replace

from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Envelope, Phase, Progress
from tokenwire.domain.request import FailoverPolicy, Submission, engine_fields
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState
from tokenwire.render.renderer import Renderer
from tokenwire.rpc.share import share_of
from tokenwire.transport.call import Call, Kind


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
        async with self._runs.claim(submission, call.context) as existing:
            if existing is not None:
                return existing
            self._runs.refuse_while_draining()
            streamed = call.kind is Kind.SERVER_STREAM
            route = await self._fleet.route(
                submission.model, lambda engine: refused_field(submission, engine, streamed=streamed) is None
            )
            engine = route.engine
            check_fields(submission, engine, streamed=streamed)
            await self.loaded(engine, call)
            engine.vet(replace(submission, model=route.model))
            model = engine.status.model(route.model)
            prompt = await self._renderer.render(submission, engine, model)
            share = share_of(submission, prompt, model, engine.default_max_tokens)
            return self._runs.accept(submission, prompt, route, share, call.context)

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


def refused_field(submission: Submission, engine: Engine, *, streamed: bool) -> str | None:
    """Returns the first field, as engines/support.py names it, that keeps an engine from answering, or None.

    Args:
        submission: the request.
        engine: the engine that shall answer.
        streamed: whether a streaming RPC asks.
    """
    for path in engine_fields(submission):
        cell = engine.fields.get(path)
        if cell is None or (cell.unary_only and streamed):
            return path
    return None


def check_fields(submission: Submission, engine: Engine, *, streamed: bool) -> None:
    """Refuses a request that sets what its engine does not have, by field and engine; arguments as above."""
    path = refused_field(submission, engine, streamed=streamed)
    if path is None:
        return
    field, _, value = path.partition("=")
    told = f"the engine {engine.name} does not have {value or 'it'}"
    if path in engine.fields:
        told = f"the engine {engine.name} cannot stream it; the unary RPC takes it"
    raise InvalidRequestError(
        field, told, reason="FEATURE_UNSUPPORTED", metadata={"field": field, "engine": engine.name}
    )


def _check_policy(submission: Submission) -> None:
    if submission.run.failover in (FailoverPolicy.BEFORE_FIRST_TOKEN, FailoverPolicy.CONTINUE):
        raise InvalidRequestError(
            "run.failover", f"{submission.run.failover.name} is not in this version", reason="FEATURE_UNSUPPORTED"
        )
    if submission.limits.allow_partial:
        raise InvalidRequestError("limits.allow_partial", "is not in this version", reason="FEATURE_UNSUPPORTED")
