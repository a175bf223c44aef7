"""The documents tell the settings as they are."""

import re
import tomllib
from pathlib import Path

import pytest

from tokenwire.settings import Settings, options
from tokenwire.settings_table import BEGIN, END, main, table, with_table

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "docs" / "configuration.md"


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_table_in_the_document_is_up_to_date(name: str) -> None:
    document = (ROOT / name).read_text(encoding="utf-8")
    if name == "README.md" and BEGIN not in document:
        pytest.skip("README.md has no table as yet")
    assert with_table(document) == document, "run: python -m tokenwire.settings_table --write"


def test_example_is_a_valid_file(tmp_path: Path) -> None:
    example = re.findall(r"```toml\n(.*?)```", CONFIGURATION.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "tokenwire.toml").write_text("".join(example))
    settings = Settings.load({}, {}, tmp_path)
    assert [engine.name for engine in settings.engines] == [
        engine["name"] for engine in tomllib.loads("".join(example))["engines"]
    ]


def test_table_holds_each_setting_and_nothing_of_this_machine() -> None:
    text = table()
    for option in options():
        assert f"`{option.flag}`" in text
        assert f"`{option.variable}`" in text
        assert option.description in text
    assert "the user's cache folder" in text
    assert str(Path.home()) not in text


def test_each_description_is_one_sentence() -> None:
    for option in options():
        assert option.description[0].isupper(), option.name
        assert option.description.endswith("."), option.name
        assert ". " not in option.description.removesuffix("."), option.name


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == table() + "\n"


def test_write_refreshes_a_document_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    main(["--write", str(document)])
    assert document.read_text() == f"before\n{BEGIN}\n{table()}\n{END}\nafter\n"


def test_write_finds_the_documents_that_have_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no markers\n")
    (tmp_path / "docs" / "configuration.md").write_text(f"{BEGIN}\n{END}\n")
    monkeypatch.chdir(tmp_path)
    main(["--write"])
    assert (tmp_path / "README.md").read_text() == "no markers\n"
    assert (tmp_path / "docs" / "configuration.md").read_text() == f"{BEGIN}\n{table()}\n{END}\n"


def test_a_named_document_without_markers_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"{END} {BEGIN}\n")
    with pytest.raises(ValueError, match="settings:begin"):
        main(["--write", str(document)])
