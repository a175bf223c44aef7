"""Every field of a message, set alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message


@dataclass(frozen=True)
class Case:
    """A path, a message with this field alone set, and the message without it (but with the groups around it)."""

    path: str
    given: Message
    bare: Message


def every_field(kind: type[Message], *, zero: bool = False) -> list[Case]:
    """Returns a case for each field of a message and of the messages in it.

    Args:
        kind: the message.
        zero: set optional fields to their zero values, and leave out all others.
    """
    root: Any = kind.DESCRIPTOR
    return [
        Case(".".join(path), _built(kind, path, zero=zero), _built(kind, path[:-1]))
        for path in _paths(root)
        if not zero or _optional(root, path)
    ]


def _optional(descriptor: Descriptor, path: list[str]) -> bool:
    field = _field(descriptor, path)
    # An optional scalar is a oneof of its own.
    oneof = field.containing_oneof
    return field.message_type is Duration.DESCRIPTOR or bool(oneof and oneof.name == f"_{field.name}")


def _field(descriptor: Descriptor, path: list[str]) -> FieldDescriptor:
    field = descriptor.fields_by_name[path[0]]
    for name in path[1:]:
        assert field.message_type is not None
        field = field.message_type.fields_by_name[name]
    return field


def _paths(descriptor: Descriptor, seen: tuple[Descriptor, ...] = ()) -> Iterator[list[str]]:
    for field in descriptor.fields:
        inner = field.message_type
        yield [field.name]
        if inner and inner not in (Duration.DESCRIPTOR, *seen) and not inner.GetOptions().map_entry:
            yield from ([field.name, *path] for path in _paths(inner, (*seen, descriptor)))


def _built(kind: type[Message], path: list[str], *, zero: bool = False) -> Message:
    root = kind()
    message: Any = root
    for number, name in enumerate(path):
        field = message.DESCRIPTOR.fields_by_name[name]
        if number < len(path) - 1:
            message = getattr(message, name).add() if field.is_repeated else getattr(message, name)
            message.SetInParent()
        else:
            _set(message, field, zero=zero)
    return root


def _set(message: Any, field: FieldDescriptor, *, zero: bool) -> None:
    value = getattr(message, field.name)
    if field.message_type is Duration.DESCRIPTOR:
        value.FromSeconds(0 if zero else 1)
        value.SetInParent()
    elif field.message_type and field.message_type.GetOptions().map_entry:
        value["key"] = "value"
    elif field.message_type:
        (value.add() if field.is_repeated else value).SetInParent()
    elif field.is_repeated:
        value.append(_scalar(field))
    else:
        setattr(message, field.name, type(value)() if zero else _scalar(field))


def _scalar(field: FieldDescriptor) -> Any:
    if field.enum_type:
        return max(value.number for value in field.enum_type.values)
    if field.type == FieldDescriptor.TYPE_STRING:
        return "some"
    return True if field.type == FieldDescriptor.TYPE_BOOL else 1
