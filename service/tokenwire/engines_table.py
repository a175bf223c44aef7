"""The table of request fields and engines in docs/engines.md; `--write` brings it up to date."""

import argparse
import sys
from pathlib import Path

from tokenwire.engines.support import KINDS, TABLE, Cell, Row

BEGIN = "<!-- fields:begin -->"
END = "<!-- fields:end -->"
DOCUMENT = Path("docs/engines.md")

_NAMES = {"llamacpp": "llama.cpp", "vllm": "vLLM", "sglang": "SGLang", "ollama": "Ollama", "openai": "OpenAI API"}


def table() -> str:
    """Returns the fields as a Markdown table, and the notes to its cells as a list."""
    notes: dict[str, int] = {}
    lines = [f"| Field | {' | '.join(_NAMES[kind] for kind in KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    for row in TABLE:
        of_row = _mark(row.note, notes) if row.cells else ""
        lines.append(f"| `{row.field}`{of_row} | {' | '.join(_cells(row, notes))} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for note, number in notes.items())])


def with_table(document: str) -> str:
    """Returns a document with the table between its markers; raises ValueError if it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} followed by {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: list[str] | None = None) -> None:
    """Prints the table, writes it into the document, or checks that it is up to date there."""
    parser = argparse.ArgumentParser(prog="python -m tokenwire.engines_table", description="Fields and engines.")
    parser.add_argument("--write", action="store_true", help="write the table between the document's markers")
    parser.add_argument("--check", action="store_true", help="fail if the document's table is out of date")
    parser.add_argument("document", nargs="?", type=Path, default=DOCUMENT)
    chosen = parser.parse_args(arguments)
    if not (chosen.write or chosen.check):
        sys.stdout.write(table() + "\n")
        return
    document = chosen.document.read_text(encoding="utf-8")
    if chosen.write:
        chosen.document.write_text(with_table(document), encoding="utf-8")
    elif with_table(document) != document:
        sys.exit(f"out of date: {chosen.document}; run python -m tokenwire.engines_table --write")


def _cells(row: Row, notes: dict[str, int]) -> list[str]:
    if not row.cells:
        return ["tokenwire" + _mark(row.note, notes)] * len(KINDS)
    return [_cell(cell, notes) for cell in row.cells]


def _cell(cell: Cell, notes: dict[str, int]) -> str:
    return cell.support.name.lower() + _mark(cell.note, notes)


def _mark(note: str, notes: dict[str, int]) -> str:
    return f" ({notes.setdefault(note, len(notes) + 1)})" if note else ""


if __name__ == "__main__":
    main()
