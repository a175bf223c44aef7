"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Returns a table.

    Args:
        heads: the columns' heads.
        rows: as many cells each.
        left: how many columns, from the first on, are words; the others are numbers, to the right.
    """
    rule = ["---" if place < left else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (heads, rule, *rows))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split()) or " "
