"""What engines behind HTTP have in common: they are asked again and again whether they answer."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress

import structlog

from tokenwire.domain.context import Clock
from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, Job, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Tokenizer
from tokenwire.engines.exchange import ReadPayloads
from tokenwire.engines.failure import GATEWAY_EXHAUSTED
from tokenwire.engines.status import EngineState, ModelInfo, Status
from tokenwire.engines.support import Cell, column
from tokenwire.engines.upstream import Upstream

_log = structlog.get_logger()

# An engine that is down is asked after this time, then after twice the time, and so on up to the last: requests must
# succeed within 5 s of its return.
DOWN_FIRST_SECONDS = 0.25
DOWN_MAX_SECONDS = 2.0


class RemoteEngine(ABC):
    """An engine behind HTTP.

    Args:
        name: its name in the settings.
        url: its address.
        model: the one model to use; empty: all that it lists.
        api_key: sent as a bearer token if not empty.
        connect_timeout: seconds to wait for a connection.
        reply_timeout: seconds to wait for a plain reply.
        check_interval: seconds between two checks of an engine that answers.
        clock: for Retry-After dates.
        sleep: waits between two checks.
    """

    kind: str
    tokenizer: Tokenizer | None = None
    takes_ids = False
    default_max_tokens: int | None = None
    slots: int | None = None
    carries: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        name: str,
        url: str,
        clock: Clock,
        model: str = "",
        api_key: str = "",
        connect_timeout: float = 5.0,
        reply_timeout: float = 30.0,
        check_interval: float = 10.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.fields: Mapping[str, Cell] = column(self.kind)
        self.status = Status(EngineState.UNAVAILABLE, (ModelInfo(model),) if model else ())
        self._model = model
        self._check_interval = check_interval
        self._sleep = sleep
        self._checks: asyncio.Task[None] | None = None
        self._left: set[asyncio.Task[None]] = set()
        self._closed = False
        self._upstream = Upstream(
            url.rstrip("/").removesuffix("/v1"),
            api_key=api_key,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            wall=clock.wall,
        )

    @abstractmethod
    async def ask(self) -> tuple[ModelInfo, ...]:
        """Asks the engine whether it answers and returns the models that it lists. Raises EngineError."""

    @abstractmethod
    def vet(self, submission: Submission) -> None:
        """See Engine."""

    @abstractmethod
    async def generate(self, job: Job, tell: Tell) -> None:
        """See Engine."""

    @property
    def ranks(self) -> bool:
        """Whether the server is known to look at `run.priority`."""
        return False

    def answer_limit(self, submission: Submission) -> int | None:
        """See Engine."""
        return None

    async def start(self) -> None:
        """Begins to ask the engine whether it answers."""
        assert self._checks is None, "an engine is started once"
        self._checks = asyncio.create_task(self._check_forever(), name=f"checks of {self.name}")

    async def check(self) -> None:
        """Asks the engine once whether it answers and for its models, and brings `status` up to date."""
        try:
            listed = await self.ask()
        except EngineError as error:
            if error.reason != GATEWAY_EXHAUSTED:
                self.status.set(EngineState.UNAVAILABLE)
        else:
            self.status.set(EngineState.READY, self._chosen(listed))

    async def close(self) -> None:
        """Stops the checks, finishes what was left to do, and closes every connection."""
        self._closed = True
        checks, self._checks = self._checks, None
        try:
            if checks is not None:
                checks.cancel()
                await asyncio.wait((checks,))
            if self._left:
                await asyncio.wait(self._left)
        finally:
            await self._upstream.close()

    def leave(self, work: Coroutine[object, object, object]) -> None:
        """Does the work in the background, such as telling the engine to stop; what fails is of no interest.

        A closed engine has no connections any more: the work is not done.
        """
        if self._closed:
            work.close()
            return

        async def quietly() -> None:
            with suppress(EngineError):
                await work

        task = asyncio.create_task(quietly(), name=f"left by {self.name}")
        self._left.add(task)
        task.add_done_callback(self._left.discard)

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

    def _chosen(self, models: tuple[ModelInfo, ...]) -> tuple[ModelInfo, ...]:
        if not self._model:
            return models
        # A name that is not listed may still be served: SGLang and llama.cpp do not look at it, others know aliases.
        return tuple(model for model in models if model.name == self._model) or (ModelInfo(self._model),)


def told(read: Callable[[list[bytes], list[Generated]], bool], tell: Tell) -> ReadPayloads:
    """Returns what reads an engine's payloads and tells what they say.

    Args:
        read: appends what payloads tell to a list and returns whether the answer is whole. When it raises EngineError,
            what it has appended is told first: text that came in one read with a failure was written all the same.
        tell: takes it.
    """

    def take(payloads: list[bytes]) -> bool:
        batch: list[Generated] = []
        try:
            whole = read(payloads, batch)
        except EngineError:
            tell(batch)
            raise
        # Also without anything to tell: the engine lives.
        tell(batch)
        return whole

    return take
