"""Commands whose options are the fields of a dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints


def with_options(options: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes the fields of the dataclass options of a command, which gets them as its argument `options`."""
    hints = get_type_hints(options, include_extras=True)
    names = [field.name for field in fields(options)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def expanded(**given: Any) -> None:
            chosen = options(**{name: given.pop(name) for name in names})
            command(**given, options=chosen)

        own = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        further = [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
            )
            for field in fields(options)
        ]
        return as_command(expanded, command.__name__, command.__doc__, [*own, *further])

    return decorate


def as_command(
    function: Callable[..., None], name: str, doc: str | None, parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    """Gives a function of keyword arguments the name and the parameters that typer reads."""
    function.__name__ = name
    function.__doc__ = doc
    function.__annotations__ = {}
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function
