"""Which fields of a request were set. Most are not, so that is what has to be fast."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple


def set_fields(value: object) -> Sequence[tuple[str, Any]]:
    """Returns the names and values of the fields of a dataclass that differ from their defaults, in their order.

    The dataclass has two fields at least.
    """
    kind: Any = type(value)
    shape = _shape(kind)
    values = shape.values(value)
    if values == shape.defaults:
        return ()
    told = zip(shape.names, values, shape.defaults, strict=True)
    return [(name, inner) for name, inner, default in told if inner is not default and inner != default]


class _Shape(NamedTuple):
    """A dataclass: its fields' names, what takes all their values at once, and their defaults."""

    names: tuple[str, ...]
    values: Callable[[object], tuple[Any, ...]]
    defaults: tuple[Any, ...]


@cache
def _shape(kind: Any) -> _Shape:
    specs = fields(kind)
    names = tuple(spec.name for spec in specs)
    # Of a single name it would return no tuple.
    assert len(names) > 1
    return _Shape(names, attrgetter(*names), tuple(map(_default, specs)))


def _default(spec: "Field[Any]") -> Any:
    return spec.default if spec.default_factory is MISSING else spec.default_factory()
