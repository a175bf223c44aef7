"""An engine whose model is asked for by another name: engines with one alias stand in for each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tokenwire.domain.generation import Job, Prompt, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine, Token, Tokenizer
from tokenwire.engines.status import EngineState, Load, ModelInfo, Status
from tokenwire.engines.support import Cell


class AliasedEngine:
    """Gives the first model of an engine another name, and hides its others.

    Args:
        engine: the engine.
        alias: the name by which requests ask for its model.
    """

    def __init__(self, engine: Engine, alias: str) -> None:
        self._engine = engine
        self._alias = alias
        self.name = engine.name
        self.kind = engine.kind
        self.takes_ids = engine.takes_ids
        self.slots = engine.slots
        self.carries = engine.carries
        self.default_max_tokens = engine.default_max_tokens
        self.status: Status = _AliasedStatus(engine.status, alias)

    @property
    def fields(self) -> Mapping[str, Cell]:
        """See Engine."""
        return self._engine.fields

    @property
    def tokenizer(self) -> Tokenizer | None:
        """See Engine."""
        tokenizer = self._engine.tokenizer
        return _AliasedTokenizer(tokenizer, self._named) if tokenizer is not None else None

    @property
    def ranks(self) -> bool:
        """See Engine."""
        return self._engine.ranks

    async def start(self) -> None:
        """See Engine."""
        await self._engine.start()

    async def check(self) -> None:
        """See Engine."""
        await self._engine.check()

    async def close(self) -> None:
        """See Engine."""
        await self._engine.close()

    def vet(self, submission: Submission) -> None:
        """See Engine."""
        self._engine.vet(self._named(submission))

    def answer_limit(self, submission: Submission) -> int | None:
        """See Engine."""
        return self._engine.answer_limit(self._named(submission))

    async def generate(self, job: Job, tell: Tell) -> None:
        """See Engine."""
        named = self._named(job.submission)
        await self._engine.generate(replace(job, model=self._own_name or job.model, submission=named), tell)

    @property
    def _own_name(self) -> str:
        return next((model.name for model in self._engine.status.models), "")

    def _named(self, submission: Submission) -> Submission:
        """Asks for the model by the name that the engine knows."""
        return replace(submission, model=self._own_name) if submission.model == self._alias else submission


class _AliasedTokenizer:
    def __init__(self, tokenizer: Tokenizer, named: Callable[[Submission], Submission]) -> None:
        self._tokenizer = tokenizer
        self._named = named

    async def prompt(self, submission: Submission) -> Prompt:
        return await self._tokenizer.prompt(self._named(submission))

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        return await self._tokenizer.tokenize(text)

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        return await self._tokenizer.answer_ids(text)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        return await self._tokenizer.detokenize(token_ids)


class _AliasedStatus(Status):
    """Another engine's status, with one model under another name."""

    def __init__(self, status: Status, alias: str) -> None:
        # What the base class keeps stays with the engine's own.
        self._inner = status
        self._alias = alias

    @property
    def state(self) -> EngineState:  # type: ignore[override]
        return self._inner.state

    @property
    def models(self) -> tuple[ModelInfo, ...]:  # type: ignore[override]
        return tuple(replace(model, name=self._alias) for model in self._inner.models[:1])

    @property
    def load(self) -> Load | None:  # type: ignore[override]
        return self._inner.load

    def watch(self, watcher: Callable[[], None]) -> None:
        self._inner.watch(watcher)

    def set(self, state: EngineState, models: tuple[ModelInfo, ...] | None = None) -> None:
        self._inner.set(state, models)

    async def changed(self) -> None:
        await self._inner.changed()
