"""The models that an OpenAI-compatible server lists."""

from collections.abc import Iterable

import msgspec

from tokenwire.engines.failure import garbled
from tokenwire.engines.openai.wire import Model, Models
from tokenwire.engines.status import ModelInfo
from tokenwire.engines.upstream import Upstream


async def listed_models(upstream: Upstream) -> list[Model]:
    """Returns what /v1/models says; raises EngineError if the reply is none."""
    try:
        return msgspec.convert(await upstream.get("/v1/models"), Models).data or []
    except msgspec.ValidationError as error:
        raise garbled() from error


async def served_models(upstream: Upstream) -> tuple[ModelInfo, ...]:
    """Returns the models of /v1/models; raises EngineError if the reply is none."""
    return infos(await listed_models(upstream))


def infos(models: Iterable[Model]) -> tuple[ModelInfo, ...]:
    """Returns what the models are called and their windows."""
    return tuple(ModelInfo(model.id, model.context_window) for model in models)
