"""The TOML file."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tokenwire.settings.names import CONFIG, DEFAULT_FILE, flag_name, variable_name
from tokenwire.settings.problems import Given, Loc, unknown

_TABLE = re.compile(r"\s*\[+\s*([A-Za-z0-9_-]+)")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_-]+)["']?\s*[.=]""")


def find_file(flag: object, environ: Mapping[str, str], cwd: Path) -> tuple[Path | None, str]:
    """Returns the file to read, if any, and who named it."""
    if flag:
        return cwd / str(flag), f"flag {flag_name(CONFIG)}"
    if named := environ.get(variable_name(CONFIG)):
        return cwd / named, variable_name(CONFIG)
    found = cwd / DEFAULT_FILE
    return (found if found.is_file() else None), "default"


def read_file(path: Path, named_by: str, names: list[str]) -> tuple[dict[str, Given], list[str]]:
    """Returns the settings of a file, and what is wrong with it; tells the file's name, never its folder."""
    source = f"file {path.name}"
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
    except OSError as error:
        return {}, [f"{CONFIG}: {source} cannot be read: {error.strerror or 'unknown reason'} (from {named_by})"]
    except UnicodeDecodeError:
        return {}, [f"{CONFIG}: {source} is not UTF-8 text (from {named_by})"]
    except RecursionError:
        return {}, [f"{CONFIG}: {source} is nested too deeply (from {named_by})"]
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at ([^()]*)\)$", str(error))
        return {}, [f"{CONFIG}: {source} is not valid TOML{f', {place[1]}' if place else ''} (from {named_by})"]
    lines = _lines(text)
    given: dict[str, Given] = {}
    problems = []
    for key, value in content.items():
        parts = {loc[1:]: f"{source}, line {line}" for loc, line in lines.items() if loc[0] == key}
        found = Given(value, source, parts=parts)
        if key in names:
            given[key] = found
        else:
            problems.append(f"{key}: {unknown(key, names)} (from {found.where(())})")
    return given, problems


def _lines(text: str) -> dict[Loc, int]:
    """Returns the line of each key as far as plain reading tells; tomllib keeps no positions."""
    lines: dict[Loc, int] = {}
    tables: Counter[str] = Counter()
    inside: Loc = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if table := _TABLE.match(line):
            name = table[1]
            inside = (name, tables[name])
            tables[name] += 1
            lines.setdefault((name,), number)
            lines[inside] = number
        elif key := _KEY.match(line):
            lines.setdefault((*inside, key[1]), number)
    return lines
