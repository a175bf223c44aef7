"""The validation rules of the contract, read from its descriptors, and values that break them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tokenwire.rpc.methods import reflection_pool

_POOL = reflection_pool()
_OPTIONS = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("google.protobuf.FieldOptions"))
_RULES: Any = _POOL.FindExtensionByName("buf.validate.field")
_BOUNDS = {"uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class Rule:
    """One field of a request with a rule: its path, and values that break it."""

    steps: tuple[FieldDescriptor, ...]
    bad: st.SearchStrategy[Any]

    @property
    def path(self) -> str:
        """The path as violations name it, without the places in lists."""
        return ".".join(step.name for step in self.steps)

    def broken(self, base: Message, value: Any) -> Message:
        """Returns a copy of a request in which the field has this value."""
        request = type(base)()
        request.CopyFrom(base)
        target: Any = request
        for step in self.steps[:-1]:
            target = getattr(target, step.name)
            if step.is_repeated:
                target = target.add()
        last = self.steps[-1]
        if last.is_repeated:
            getattr(target, last.name).extend([_item(last)] * value)
        elif _is_duration(last):
            getattr(target, last.name).FromNanoseconds(value)
        else:
            setattr(target, last.name, value)
        return request


def rules(request: type[Message]) -> list[Rule]:
    """Returns the rules on the fields of a request and of the messages in it, as far as a value can break them."""
    descriptor = _POOL.FindMessageTypeByName(request.DESCRIPTOR.full_name)
    return [Rule(steps, bad) for steps in paths(descriptor) if (bad := _breaking(steps[-1])) is not None]


def paths(descriptor: Descriptor, before: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yields the path of every field, those of maps left out."""
    for field in descriptor.fields:
        steps = (*before, field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        yield steps
        if field.message_type is not None and _inner(field):
            yield from paths(field.message_type, steps)


def _inner(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not _is_duration(field)


def _is_duration(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration"


def _breaking(field: FieldDescriptor) -> st.SearchStrategy[Any] | None:
    rule: Any = _OPTIONS.FromString(field.GetOptions().SerializeToString()).Extensions[_RULES]
    kind = rule.WhichOneof("type")
    if kind is None:
        return None
    make: Callable[[FieldDescriptor, Any], st.SearchStrategy[Any]] = _MAKERS[kind]
    return make(field, getattr(rule, kind))


def _floats(field: FieldDescriptor, rule: Any) -> st.SearchStrategy[float]:
    low, high = _limits(rule)
    options = [st.sampled_from([math.nan, math.inf, -math.inf])] if rule.finite else []
    if low is not None:
        options.append(st.floats(max_value=low, exclude_max=rule.HasField("gte"), width=32))
    if high is not None:
        options.append(st.floats(min_value=high, exclude_min=rule.HasField("lte"), width=32))
    return st.one_of(options)


def _integers(field: FieldDescriptor, rule: Any) -> st.SearchStrategy[int]:
    low, high = _limits(rule)
    least, most = _BOUNDS["uint32" if field.type == FieldDescriptor.TYPE_UINT32 else "int32"]
    options = []
    if low is not None and low - rule.HasField("gte") >= least:
        options.append(st.integers(least, low - rule.HasField("gte")))
    if high is not None:
        options.append(st.integers(high + rule.HasField("lte"), most))
    return st.one_of(options)


def _durations(field: FieldDescriptor, rule: Any) -> st.SearchStrategy[int]:
    # In nanoseconds; 0 is out of bounds where the bound is open.
    below = 0 if rule.HasField("gt") else -1
    above = rule.lte.ToNanoseconds() + 1
    return st.integers(-(10**18), below) | st.integers(above, 10**18)


def _enums(field: FieldDescriptor, rule: Any) -> st.SearchStrategy[int]:
    assert field.enum_type is not None
    known = set(field.enum_type.values_by_number)
    return st.integers(-(2**31), 2**31 - 1).filter(lambda number: number not in known)


def _strings(field: FieldDescriptor, rule: Any) -> st.SearchStrategy[str]:
    options: list[st.SearchStrategy[str]] = []
    if rule.HasField("max_bytes"):
        # Above the bound in bytes; below it in characters.
        options.append(
            st.sampled_from(["x", "é", "水"]).map(lambda one: one * (rule.max_bytes // len(one.encode()) + 1))
        )
    if rule.HasField("min_len"):
        options.append(st.just(""))
    if rule.HasField("pattern"):
        options.append(st.text(st.sampled_from(' \n\0"é水🌊'), min_size=1, max_size=8))
    return st.one_of(options)


def _repeated(field: FieldDescriptor, rule: Any) -> st.SearchStrategy[int]:
    # How many items.
    return st.just(int(rule.max_items) + 1)


def _item(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        # Of the stubs' pool, where the request is of.
        here = descriptor_pool.Default().FindMessageTypeByName(field.message_type.full_name)
        return message_factory.GetMessageClass(here)()
    return "x" if field.type == FieldDescriptor.TYPE_STRING else 1


def _limits(rule: Any) -> tuple[Any, Any]:
    low = next((getattr(rule, name) for name in ("gte", "gt") if rule.HasField(name)), None)
    high = next((getattr(rule, name) for name in ("lte", "lt") if rule.HasField(name)), None)
    return low, high


_MAKERS: dict[str, Any] = {
    "float": _floats,
    "uint32": _integers,
    "int32": _integers,
    "duration": _durations,
    "enum": _enums,
    "string": _strings,
    "repeated": _repeated,
    "map": lambda field, rule: None,
}
