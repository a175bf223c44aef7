"""All sources of settings, merged: flags over variables over the ecosystem's over the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tokenwire.settings.ecosystem import read_ecosystem
from tokenwire.settings.engine import engine_of_flag
from tokenwire.settings.environment import read_variables
from tokenwire.settings.file import find_file, read_file
from tokenwire.settings.names import CONFIG, flag_name
from tokenwire.settings.problems import Given, unknown


def gather(
    flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path, fields: Mapping[str, FieldInfo]
) -> tuple[dict[str, Given], list[str]]:
    """Returns the winning value of each setting that anybody gave, and the problems known before validation."""
    names = list(fields)
    by_flag, problems = _read_flags(flags, names)
    by_variable, unknown_variables = read_variables(environ, names)
    # Only text has to be parsed: the file has types of its own.
    texts = {**read_ecosystem(environ), **by_variable, **by_flag}
    given = {name: _parsed(found, fields[name]) for name, found in texts.items()}
    problems += unknown_variables
    path, named_by = find_file(flags.get(CONFIG), environ, cwd)
    if path:
        by_file, file_problems = read_file(path, named_by, names)
        given = {**by_file, **given}
        problems += file_problems
    problems += [problem for found in given.values() for problem in found.problems]
    return given, problems


def _read_flags(flags: Mapping[str, object], names: list[str]) -> tuple[dict[str, Given], list[str]]:
    given: dict[str, Given] = {}
    problems = []
    for name, value in flags.items():
        source = f"flag {flag_name(name)}"
        if name not in (*names, CONFIG):
            problems.append(f"{name}: {unknown(name, names)} (from {source})")
        # A command line hands on every flag it knows; those that were not given are None, or empty if they repeat.
        elif name != CONFIG and value is not None and value not in ([], ()):
            given[name] = Given(_engines(value) if name == "engines" else value, source)
    return given, problems


def _engines(value: object) -> object:
    if isinstance(value, str):
        return [engine_of_flag(value)]
    if isinstance(value, list | tuple):
        return [engine_of_flag(item) if isinstance(item, str) else item for item in value]
    return value


def _parsed(found: Given, info: FieldInfo) -> Given:
    kind: Any = info.annotation
    if not isinstance(found.value, str) or kind in (str, Path):
        return found
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return Given(adapter.validate_strings(found.value.strip()), found.source)
    except ValidationError:
        # The model refuses the text, and says what it wants.
        return found
