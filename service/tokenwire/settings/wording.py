"""Words about a setting that its type does not tell."""

from dataclasses import dataclass

from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Wording:
    """Stands in the annotation of a field.

    Args:
        wanted: the kind of value, to follow "wants".
        default: how to show a default that is empty or differs from machine to machine.
    """

    wanted: str = ""
    default: str = ""


def told(text: str) -> PydanticCustomError:
    """Returns the error of a validator that has more to say than the kind of value; never with the value itself."""
    return PydanticCustomError("told", "{text}", {"text": text})
