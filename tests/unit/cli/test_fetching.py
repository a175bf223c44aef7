"""How the model's download is told."""

import pytest

from tokenwire.cli.fetching import Fetching

MEGABYTE = 1_000_000


def test_without_a_terminal_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Fetching() as fetching:
        for done in range(101):
            fetching.progress(done * MEGABYTE, 100 * MEGABYTE, "download")
        fetching.progress(0, 90 * MEGABYTE, "unpack")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "fetching the model: 0 of 100 MB",
        "fetching the model: 25 of 100 MB",
        "fetching the model: 50 of 100 MB",
        "fetching the model: 75 of 100 MB",
        "fetching the model: 100 of 100 MB",
        "unpacking the model: 0 of 90 MB",
    ]


def test_without_a_total_it_tells_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Fetching() as fetching:
        for done in range(60):
            fetching.progress(done * MEGABYTE, 0, "download")
    assert capsys.readouterr().err.splitlines() == [
        "fetching the model: 0 MB",
        "fetching the model: 25 MB",
        "fetching the model: 50 MB",
    ]


def test_on_a_terminal_it_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Fetching() as fetching:
        for done in (0, 50, 100):
            fetching.progress(done * MEGABYTE, 100 * MEGABYTE, "download")
    out, err = capsys.readouterr()
    assert out == ""
    assert "100.0/100.0 MB" in err
    assert "fetching the model:" not in err
