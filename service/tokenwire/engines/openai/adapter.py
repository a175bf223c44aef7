"""Any OpenAI-compatible server as an engine."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

import msgspec
import structlog

from tokenwire.domain.context import Clock
from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, Job
from tokenwire.engines.engine import Support, Tokenizer
from tokenwire.engines.failure import cut
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.openai.request import FIELDS, endpoint_and_body
from tokenwire.engines.openai.wire import Model, Models
from tokenwire.engines.status import EngineState, ModelInfo, Status
from tokenwire.engines.upstream import Upstream

_log = structlog.get_logger()

# An engine that is down is asked after this time, then after twice the time, and so on up to the last: requests must
# succeed within 5 s of its return.
DOWN_FIRST_SECONDS = 0.25
DOWN_MAX_SECONDS = 2.0


class OpenAIEngine:
    """An engine behind OpenAI's HTTP API.

    Args:
        name: its name in the settings.
        kind: the adapter's kind.
        url: its address, with or without /v1.
        model: the one model to use; empty: all that it lists.
        api_key: sent as a bearer token if not empty.
        connect_timeout: seconds to wait for a connection.
        reply_timeout: seconds to wait for a plain reply.
        check_interval: seconds between two checks of an engine that answers.
        clock: for Retry-After dates.
        sleep: waits between two checks.
    """

    fields: Mapping[str, Support] = FIELDS
    tokenizer: Tokenizer | None = None
    default_max_tokens: int | None = None

    def __init__(
        self,
        *,
        name: str,
        url: str,
        clock: Clock,
        kind: str = "openai",
        model: str = "",
        api_key: str = "",
        connect_timeout: float = 5.0,
        reply_timeout: float = 30.0,
        check_interval: float = 10.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.kind = kind
        self.status = Status(models=(ModelInfo(model),) if model else ())
        self._model = model
        self._check_interval = check_interval
        self._sleep = sleep
        self._upstream = Upstream(
            url.rstrip("/").removesuffix("/v1"),
            api_key=api_key,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            wall=clock.wall,
        )
        self._checks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to check the engine again and again."""
        if self._checks is None:
            self._checks = asyncio.create_task(self._check_forever(), name=f"check {self.name}")

    async def check(self) -> None:
        """Asks the engine once whether it answers and for its models, and brings `status` up to date."""
        try:
            listed = msgspec.convert(await self._upstream.get("/v1/models"), Models).data or []
        except (EngineError, msgspec.ValidationError):
            self.status.set(EngineState.UNAVAILABLE)
        else:
            self.status.set(EngineState.READY, self._models(listed))

    async def close(self) -> None:
        """Stops the checks and closes every connection."""
        checks, self._checks = self._checks, None
        try:
            if checks is not None:
                checks.cancel()
                await asyncio.wait((checks,))
        finally:
            await self._upstream.close()

    async def generate(self, job: Job) -> AsyncGenerator[list[Generated], None]:
        """Yields what the engine writes, one list a read. Closing the generator closes the connection."""
        path, body = endpoint_and_body(job)
        answer = Answer(job.submission.n)
        async with aclosing(self._upstream.events(path, body)) as reads:
            async for payloads in reads:
                batch: list[Generated] = []
                failure: EngineError | None = None
                try:
                    answer.read(payloads, batch)
                except EngineError as error:
                    failure = error
                # The text that came in one read with the failure was written all the same.
                # Also without anything to tell: the engine lives.
                yield batch
                if failure is not None:
                    raise failure
                if answer.done:
                    return
        raise cut()

    async def _check_forever(self) -> None:
        down = DOWN_FIRST_SECONDS
        while True:
            try:
                await self.check()
            except Exception:
                # A bug must not leave the engine unwatched for ever.
                _log.exception("the engine's check failed", engine=self.name)
                self.status.set(EngineState.UNAVAILABLE)
            if self.status.state is EngineState.READY:
                down = DOWN_FIRST_SECONDS
                await self._sleep(self._check_interval)
            else:
                await self._sleep(min(down, self._check_interval))
                down = min(down * 2, DOWN_MAX_SECONDS)

    def _models(self, listed: list[Model]) -> tuple[ModelInfo, ...]:
        models = tuple(ModelInfo(model.id, model.context_window) for model in listed)
        if not self._model:
            return models
        # A name that is not listed may still be served: SGLang and llama.cpp do not look at it, others know aliases.
        return tuple(model for model in models if model.name == self._model) or (ModelInfo(self._model),)
