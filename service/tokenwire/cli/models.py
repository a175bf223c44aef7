"""`tokenwire models`."""

from typing import TYPE_CHECKING

from tokenwire.cli.options import DEFAULT_TARGET, Json, Target, Timeout

if TYPE_CHECKING:
    from tokenwire.v1.model_pb2 import Model


def models(target: Target = DEFAULT_TARGET, timeout: Timeout = 10.0, as_json: Json = False) -> None:
    """Lists the server's models: name, state, context window, engines."""
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.printing import json_line
    from tokenwire.cli.tables import print_rows

    with Connection(target, as_json=as_json) as connection:
        found = connection.run(connection.client.models(timeout=timeout))
    if as_json:
        for model in found:
            print(json_line(model))
    else:
        print_rows(("model", "default", "state", "context", "engines"), [_row(model) for model in found])


def _row(model: "Model") -> tuple[str, ...]:
    from tokenwire.v1.model_pb2 import ModelState

    window = max((engine.context_window for engine in model.engines), default=0)
    return (
        model.name,
        "default" if model.is_default else "",
        ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower(),
        str(window or ""),
        ", ".join(f"{engine.name} ({engine.kind})" for engine in model.engines),
    )
