"""What is wrong with the settings, in words that never hold a value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from tokenwire.settings.engine import EngineSettings
from tokenwire.settings.wording import Wording

Loc = tuple[int | str, ...]


class SettingsError(Exception):
    """The settings are wrong; `problems` has one line for each thing to mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave, and where.

    Args:
        source: as it is shown for the whole setting.
        entries: the source of each entry, where they differ.
        parts: a closer place for parts of the value, such as a line of the file; () is the value itself.
        problems: what is wrong with it already, told only if no higher source replaces it.
    """

    value: object = field(repr=False)
    source: str
    entries: tuple[str, ...] = ()
    parts: Mapping[Loc, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def where(self, loc: Loc) -> str:
        """Returns the closest place that is known for a part of the value."""
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.parts:
                return self.parts[loc[:length]]
        return self.source


def conflict(setting: str, other: str, text: str) -> PydanticCustomError:
    """Returns the error of two settings that do not go together: `setting` is named, and where both came from."""
    return PydanticCustomError("conflict", "{text}", {"text": text, "setting": setting, "other": other})


def explain(error: ValidationError, given: Mapping[str, Given], model: type[BaseModel]) -> Iterator[str]:
    """Yields a line for each error of a validation."""
    for detail in error.errors(include_url=False, include_input=False):
        context = detail.get("ctx", {})
        if detail["type"] == "conflict":
            name, other = context["setting"], context["other"]
            places = f"from {_where(given, (name,))}; {other} is from {_where(given, (other,))}"
            yield f"{name}: {context['text']} ({places})"
        else:
            loc = detail["loc"]
            yield f"{_path(loc)}: {_problem(detail, model)} (from {_where(given, loc)})"


def unknown(name: str, known: Sequence[str], *, prefix: str = "") -> str:
    """Returns what to say about a name that does not exist; a prefix of all names does not make them alike."""
    matches = get_close_matches(name.removeprefix(prefix), [other.removeprefix(prefix) for other in known], n=1)
    return "no such setting" + (f"; did you mean {prefix}{matches[0]}?" if matches else "")


def wanted(info: FieldInfo) -> str:
    """Returns the kind of value that a field wants, such as "a whole number above 0"."""
    for item in info.metadata:
        if isinstance(item, Wording) and item.wanted:
            return item.wanted
    if get_origin(info.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(info.annotation)))
    kinds: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number of seconds", str: "text"}
    bounds = list(_bounds(info))
    return kinds[info.annotation] + (" " + " and ".join(bounds) if bounds else "")


def _bounds(info: FieldInfo) -> Iterator[str]:
    for item in info.metadata:
        match item:
            case Gt(gt=bound):
                yield f"above {bound}"
            case Ge(ge=bound):
                yield f"of at least {bound}"
            case Le(le=bound):
                yield f"of at most {bound}"


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    loc = detail["loc"]
    fields = model.model_fields if len(loc) < 3 else EngineSettings.model_fields
    if detail["type"] == "extra_forbidden":
        return unknown(str(loc[-1]), list(fields))
    if detail["type"] == "told":
        return detail["msg"]
    if len(loc) == 2:
        return f"wants {EngineSettings.WANTED}"
    absent = "is missing; " if detail["type"] == "missing" else ""
    return f"{absent}wants {wanted(fields[str(loc[-1])])}"


def _path(loc: Loc) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _where(given: Mapping[str, Given], loc: Loc) -> str:
    found = given.get(str(loc[0]))
    return found.where(loc[1:]) if found else "default"
