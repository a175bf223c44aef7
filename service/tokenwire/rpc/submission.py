"""From a request to its run: joined, or rendered and accepted."""

import asyncio
from dataclasses import dataclass

from tokenwire.dispatch.fleet import Fleet, Route
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.cursor import START
from tokenwire.domain.errors import Code, InvalidRequestError, TokenwireError
from tokenwire.domain.events import Envelope, Phase, Progress
from tokenwire.domain.request import FailoverPolicy, Submission, engine_fields
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState
from tokenwire.render.renderer import render
from tokenwire.transport.call import Call, Kind

# What a token costs in the journal: its text, an index entry and its id; a log probability is an object of its own.
TOKEN_BYTES = 32
LOGPROB_BYTES = 240
RUN_BYTES = 4096
# Reserved for a run whose length nobody knows; it may outgrow it.
UNKNOWN_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How long a call waits for a model that is being loaded, and how often it hears so, in seconds."""

    limit: float
    interval: float = 1.0


class Submitter:
    """Finds or starts the run of a request."""

    def __init__(self, fleet: Fleet, runs: Runs, loading: Loading) -> None:
        self._fleet = fleet
        self._runs = runs
        self._loading = loading

    async def submit(self, submission: Submission, call: Call) -> Run:
        """Returns the run, accepted. A refusal makes no run."""
        _check_policy(submission)
        async with self._runs.claim(submission, call.context) as existing:
            if existing is not None:
                return existing
            self._runs.refuse_while_draining()
            route = await self._fleet.route(submission.model)
            check_fields(submission, route.engine)
            await self.loaded(route.engine, call)
            window = _context_window(route)
            prompt = await render(submission, route.engine, window)
            return self._runs.accept(submission, prompt, route, _share(submission, route, window), call.context)

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


def check_fields(submission: Submission, engine: Engine) -> None:
    """Refuses a request that sets what its engine does not have, by field and engine."""
    for field in engine_fields(submission):
        if field not in engine.fields:
            raise InvalidRequestError(
                field,
                f"the engine {engine.name} does not have it",
                reason="FEATURE_UNSUPPORTED",
                metadata={"field": field, "engine": engine.name},
            )


def _check_policy(submission: Submission) -> None:
    if submission.run.failover in (FailoverPolicy.BEFORE_FIRST_TOKEN, FailoverPolicy.CONTINUE):
        raise InvalidRequestError(
            "run.failover", f"{submission.run.failover.name} is not in this version", reason="FEATURE_UNSUPPORTED"
        )
    if submission.limits.allow_partial:
        raise InvalidRequestError("limits.allow_partial", "is not in this version", reason="FEATURE_UNSUPPORTED")


def _context_window(route: Route) -> int | None:
    return next((one.context_window for one in route.engine.status.models if one.name == route.model), None)


def _share(submission: Submission, route: Route, window: int | None) -> int:
    tokens = submission.stopping.max_tokens or route.engine.default_max_tokens
    if tokens is None:
        tokens = min(window or UNKNOWN_TOKENS, UNKNOWN_TOKENS)
    each = TOKEN_BYTES
    if submission.output.logprobs is not None:
        each += LOGPROB_BYTES * (1 + (submission.output.logprobs.top_n or 0))
    return RUN_BYTES + _asked_bytes(submission) + submission.n * tokens * each


def _asked_bytes(submission: Submission) -> int:
    """What the request itself holds while its run lives: its text, once more as rendered, and its token ids."""
    texts = [submission.prompt or "", *(message.content for message in submission.messages)]
    return 3 * sum(len(text) for text in texts) + 8 * len(submission.prompt_ids)
