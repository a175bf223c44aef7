"""The models that an Ollama has, and what it tells of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import structlog

from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.failure import garbled
from tokenwire.engines.ollama.wire import Details, Loaded, Running, Shown, Tags, Version
from tokenwire.engines.upstream import Upstream

_log = structlog.get_logger()

# Older ones ignore `truncate`, `shift` (0.12.6), ids of tool calls (0.12.10) or `logprobs` (0.12.11) without a word.
OLDEST = (0, 12, 11)
# Before, only models that always reason took a level.
_WITH_LEVELS = (0, 17, 7)
# What a build without a version calls itself; taken for the newest.
_UNRELEASED = (0, 0, 0)
_LATEST = ":latest"

# These models always reason: they take `false` without a word.
_ALWAYS_REASON = frozenset({"gptoss", "gpt-oss"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of an Ollama.

    Attributes:
        name: its full name, with its tag.
        window: tokens of prompt and answer together; None if nobody can say before it is loaded.
        capabilities: such as completion, tools and thinking; None if not told.
        stops: its own stop strings, which those of a request would replace.
        always_reasons: whether it cannot be kept from reasoning.
        has_levels: whether it may be told how much to reason.
    """

    name: str
    window: int | None = None
    capabilities: frozenset[str] | None = None
    stops: tuple[str, ...] = ()
    always_reasons: bool = False
    has_levels: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names to ask for: without a tag, the latest is meant."""
        return (self.name, self.name.removesuffix(_LATEST)) if self.name.endswith(_LATEST) else (self.name,)

    def lacks(self, capability: str) -> bool:
        """Whether the model is known not to have it."""
        return self.capabilities is not None and capability not in self.capabilities


class Catalog:
    """What is known of the models; each is asked about once, until its content changes.

    Args:
        engine: the engine's name, for the log.
        upstream: the Ollama.
    """

    def __init__(self, engine: str, upstream: Upstream) -> None:
        self._engine = engine
        self._upstream = upstream
        self._shown: dict[str, Model] = {}
        self._known: dict[str, Model] = {}
        self._version: tuple[int, ...] | None = None

    def known(self, name: str) -> Model | None:
        """Returns a model if it was asked about before."""
        return self._known.get(name)

    async def models(self) -> tuple[Model, ...]:
        """Asks for all models that can write text. Raises EngineError, also for a version that is too old."""
        await self._check_version()
        listed = _as(Tags, await self._upstream.get("/api/tags")).models or []
        running = _as(Running, await self._upstream.get("/api/ps")).models or []
        found: list[Model] = []
        shown: dict[str, Model] = {}
        for one in listed:
            try:
                model = shown.get(one.digest) or self._shown.get(one.digest) or await self._show(one.name)
            except EngineError:
                # Deleted a moment ago, or one of a cloud that does not answer: no reason to do without the others.
                model = Model(name=one.name)
            else:
                if one.digest:
                    shown[one.digest] = model
            if not model.lacks("completion"):
                found.append(_loaded(replace(model, name=one.name), running))
        self._shown = shown
        self._known = {name: model for model in found for name in model.names}
        return tuple(found)

    async def model(self, name: str) -> Model:
        """Returns a model, asked about now if it was not before. Raises EngineError, MODEL_NOT_FOUND among them."""
        return self._known.get(name) or await self.again(name)

    async def again(self, name: str) -> Model:
        """Asks about a model, whatever is known. Raises EngineError."""
        await self._check_version()
        running = _as(Running, await self._upstream.get("/api/ps")).models or []
        model = self._known[name] = _loaded(await self._show(name), running)
        return model

    async def _show(self, name: str) -> Model:
        shown = _as(Shown, await self._upstream.post("/api/show", {"model": name}))
        parameters = list(_parameters(shown.parameters))
        own = next((value for key, value in parameters if key == "num_ctx" and type(value) is int), None)
        trained = _trained(shown.model_info or {})
        if shown.remote_host:
            # Its window is not that of this Ollama.
            own = None
        always_reasons = (shown.details or Details()).family in _ALWAYS_REASON
        return Model(
            name=name if ":" in name.rpartition("/")[2] else name + _LATEST,
            window=min(own, trained or own) if own else None,
            capabilities=None if shown.capabilities is None else frozenset(shown.capabilities),
            stops=tuple(value for key, value in parameters if key == "stop" and isinstance(value, str)),
            always_reasons=always_reasons,
            has_levels=always_reasons or self._version is None or self._version >= _WITH_LEVELS,
        )

    async def _check_version(self) -> None:
        version = _numbers(_as(Version, await self._upstream.get("/api/version")).version)
        old = version is not None and version < OLDEST
        if version != self._version:
            self._version = version
            self._shown.clear()
            if old:
                _log.warning("this Ollama is too old", engine=self._engine, oldest=_dotted(OLDEST))
        if old:
            raise EngineError(
                Code.FAILED_PRECONDITION,
                "ENGINE_TOO_OLD",
                f"this Ollama is older than {_dotted(OLDEST)} and would ignore parts of requests",
            )


def _numbers(version: str) -> tuple[int, ...] | None:
    """Returns the numbers of a version, None for somebody's own build."""
    try:
        numbers = tuple(int(part) for part in version.partition("-")[0].partition("+")[0].split("."))
    except ValueError:
        return None
    return None if numbers == _UNRELEASED else numbers


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _loaded(model: Model, running: list[Loaded]) -> Model:
    """Gives a model the window that it is loaded with, if it has none of its own."""
    if model.window is not None:
        return model
    window = next((one.context_length for one in running if one.name in model.names), 0)
    return replace(model, window=window or None)


def _trained(info: Mapping[str, Any]) -> int | None:
    """Returns the window that a model was made for."""
    value = info.get(f"{info.get('general.architecture')}.context_length")
    return value if type(value) is int and value > 0 else None


def _parameters(text: str) -> Iterator[tuple[str, Any]]:
    """Yields names and values of a model's own settings. Text is quoted as in Go, nearly as in JSON."""
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        try:
            yield name, msgspec.json.decode(value.strip())
        except msgspec.DecodeError:
            continue


def _as(kind: type[_T], reply: Any) -> _T:
    try:
        return msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        raise garbled() from error
