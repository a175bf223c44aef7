"""docs/engines.md tells the table of fields and engines as it is."""

from pathlib import Path

import pytest

from tokenwire.engines.support import KINDS, TABLE
from tokenwire.engines_table import BEGIN, END, main, table, with_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "engines.md"


def test_the_table_in_the_document_is_up_to_date() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(document) == document, "run: python -m tokenwire.engines_table --write"


def test_the_table_has_a_line_for_each_field_and_tells_what_is_refused() -> None:
    lines = {line.split("`")[1]: line for line in table().splitlines() if line.startswith("| `")}
    assert list(lines) == [row.field for row in TABLE]
    for row in TABLE:
        cells = [cell.strip() for cell in lines[row.field].split("|")[2:-1]]
        assert len(cells) == len(KINDS)
        for cell, told in zip(row.cells, cells, strict=False):
            assert told.startswith(cell.support.name.lower())


def test_every_note_is_told_once() -> None:
    text = table()
    notes = {cell.note for row in TABLE for cell in row.cells if cell.note} | {row.note for row in TABLE if row.note}
    told = [line.split(". ", 1)[1] for line in text.splitlines() if line[:1].isdigit()]
    assert sorted(told) == sorted(notes)


def test_the_table_is_printed_written_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == table() + "\n"
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    with pytest.raises(SystemExit, match="out of date"):
        main(["--check", str(page)])
    main(["--write", str(page)])
    main(["--check", str(page)])
    assert page.read_text() == f"before\n{BEGIN}\n{table()}\n{END}\nafter\n"


def test_a_document_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{END} {BEGIN}\n")
    with pytest.raises(ValueError, match="fields:begin"):
        main(["--write", str(page)])
