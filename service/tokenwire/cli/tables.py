"""Rows on standard output: a table for people, tab-separated values for a pipe."""

import re
from collections.abc import Iterable, Sequence

from tokenwire.cli.terminal import on_terminal, plain

_BREAKS = re.compile(r"[\t\n\r]+")


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows, with the columns' names above them on a terminal."""
    if not on_terminal():
        for row in rows:
            print("\t".join(_BREAKS.sub(" ", cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    Console().print(table)
