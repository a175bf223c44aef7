"""The table of settings in the documents; `python -m tokenwire.settings_table --write` brings it up to date."""

import argparse
import sys
from pathlib import Path

from tokenwire.settings import SettingOption, options

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"
DOCUMENTS = ("README.md", "docs/configuration.md")


def table() -> str:
    """Returns the settings as a Markdown table."""
    lines = ["| Flag | Variable | Default | Meaning |", "|---|---|---|---|"]
    lines += [
        f"| {_flag(option)} | `{option.variable}` | {_cell(option.default)} | {_meaning(option)} |"
        for option in options()
    ]
    return "\n".join(lines)


def with_table(document: str) -> str:
    """Returns a document with the table between its markers; raises ValueError if it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} followed by {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: list[str] | None = None) -> None:
    """Prints the table, or writes it into documents."""
    parser = argparse.ArgumentParser(prog="python -m tokenwire.settings_table", description="The table of settings.")
    parser.add_argument("--write", action="store_true", help="write the table between the markers of the documents")
    parser.add_argument("--check", action="store_true", help="fail if a document's table is out of date")
    parser.add_argument(
        "documents", nargs="*", type=Path, help=f"default: those of {' and '.join(DOCUMENTS)} that have the markers"
    )
    chosen = parser.parse_args(arguments)
    if chosen.check:
        stale = [str(path) for path in chosen.documents or _marked() if not _is_current(path)]
        if stale:
            sys.exit(f"out of date: {', '.join(stale)}; run python -m tokenwire.settings_table --write")
        return
    if not chosen.write:
        sys.stdout.write(table() + "\n")
        return
    for path in chosen.documents or _marked():
        document = path.read_text(encoding="utf-8")
        path.write_text(with_table(document), encoding="utf-8")


def _is_current(path: Path) -> bool:
    document = path.read_text(encoding="utf-8")
    return with_table(document) == document


def _marked() -> list[Path]:
    paths = [path for path in map(Path, DOCUMENTS) if path.is_file()]
    return [path for path in paths if BEGIN in path.read_text(encoding="utf-8")]


def _flag(option: SettingOption) -> str:
    return f"`{option.flag}`, `--no-{option.flag[2:]}`" if option.value_type is bool else f"`{option.flag}`"


def _meaning(option: SettingOption) -> str:
    known = f" One of {', '.join(f'`{choice}`' for choice in option.choices)}." if len(option.choices) > 1 else ""
    return _cell(option.description + known)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
