"""Whether an engine has all that a request asks for."""

from collections.abc import Iterable

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.engines.engine import Engine


def refused_field(asked: Iterable[str], engine: Engine, *, streamed: bool) -> str | None:
    """Returns the first field, as engines/support.py names it, that keeps an engine from answering, or None.

    Args:
        asked: what the request asks for, as `engine_fields` tells it.
        engine: the engine that shall answer.
        streamed: whether a streaming RPC asks.
    """
    for path in asked:
        cell = engine.fields.get(path)
        if cell is None or (cell.unary_only and streamed):
            return path
    return None


def check_fields(asked: Iterable[str], engine: Engine, *, streamed: bool) -> None:
    """Refuses a request that sets what its engine does not have, by field and engine; arguments as above."""
    path = refused_field(asked, engine, streamed=streamed)
    if path is None:
        return
    field, _, value = path.partition("=")
    told = f"the engine {engine.name} does not have {value or 'it'}"
    if path in engine.fields:
        told = f"the engine {engine.name} cannot stream it; the unary RPC takes it"
    raise InvalidRequestError(
        field, told, reason="FEATURE_UNSUPPORTED", metadata={"field": field, "engine": engine.name}
    )


def answers_whole(asked: Iterable[str], engine: Engine) -> bool:
    """Whether the engine answers such a request as a whole only."""
    fields = engine.fields
    return any(path in fields and fields[path].unary_only for path in asked)
