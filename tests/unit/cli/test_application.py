"""Help, usage errors and settings, as the command line tells them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.chosen_transport import VARIABLE
from harness.command_line import environment
from tokenwire.cli.application import run
from tokenwire.settings import options


class Told:
    """Runs commands in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["tokenwire", *arguments])
        code = run()
        told = self._capsys.readouterr()
        return code, told.out, told.err


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Told:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("TOKENWIRE_TARGET", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return Told(monkeypatch, capsys)


def test_help_of_serve_shows_flag_variable_and_default_of_each_setting(told: Told) -> None:
    code, out, _ = told("serve", "--help")
    assert code == 0
    # Without the line breaks of the layout.
    text = " ".join(out.split())
    for option in options():
        assert f"{option.flag} " in text
        default = " ".join(option.default.split())
        assert f"[variable {option.variable}; default: {default}]" in text, option.name


def test_help_of_a_client_shows_the_servers_address_and_its_variable(told: Told) -> None:
    _, out, _ = told("generate", "--help")
    assert "[env var: TOKENWIRE_TARGET; default: 127.0.0.1:50051]" in " ".join(out.split())


def test_every_command_has_help(told: Told) -> None:
    commands = "serve", "generate", "chat", "models", "health", "version", "runs", "config"
    _, out, _ = told("--help")
    listed = {line.split()[0] for line in out.partition("Commands:\n")[2].splitlines() if line.strip()}
    assert listed >= {*commands}
    for command in (*commands, *("runs ls", "runs show", "runs attach", "runs cancel", "config show")):
        code, out, err = told(*command.split(), "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: tokenwire {command} ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generat"], "Did you mean 'generate'?"),
        (["generate", "hi", "--n", "0"], "--n"),
        (["generate", "hi", "--buffer", "size:0"], "--buffer"),
        (["generate", "hi", "--buffer", "words"], "--buffer"),
        (["runs", "attach", "run_1", "--after", "[1]"], "--after"),
        (["serve", "--slots", "many"], "--slots"),
    ],
)
def test_wrong_usage_exits_with_1(told: Told, arguments: list[str], said: str) -> None:
    code, out, err = told(*arguments)
    assert (code, out) == (1, "")
    assert said in err


def test_version_is_told_by_command_and_by_flag(told: Told) -> None:
    assert told("version") == told("--version") == (0, "tokenwire 0.1.0\n", "")
    assert json.loads(told("version", "--json")[1])["version"] == "0.1.0"


def test_config_show_tells_value_and_source_and_hides_secrets(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('drain_seconds = 7\n[[engines]]\nname="a"\nkind="openai"\nurl="http://x:1"\napi_key="sk-secret"\n')
    monkeypatch.setenv("TOKENWIRE_SLOTS", "3")
    code, out, err = told("config", "show", "--config", str(file))
    rows = {name: (value, source) for name, value, source in (line.split("\t") for line in out.splitlines())}
    assert (code, err) == (0, "")
    assert rows["slots"] == ("3", "TOKENWIRE_SLOTS")
    assert rows["drain_seconds"][0] == "7"
    assert "mine.toml" in rows["drain_seconds"][1]
    assert rows["listen"] == ("127.0.0.1:50051", "default")
    assert "api_key ********" in rows["engines.a"][0]
    as_json = told("config", "show", "--json", "--config", str(file))[1]
    assert {"name": "slots", "value": "3", "source": "TOKENWIRE_SLOTS"} in map(json.loads, as_json.splitlines())
    assert "sk-secret" not in out + as_json


def test_config_show_tells_wrong_settings(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENWIRE_SLOT", "3")
    code, out, err = told("config", "show")
    assert (code, out) == (1, "")
    assert "did you mean TOKENWIRE_SLOTS?" in err


LOADED = """
import sys
from tokenwire.cli.application import run
sys.argv = ["tokenwire", "generate", "--help"]
run()
print(*{"grpc", "tokenwire.app", "tokenwire.settings", "rich"} & set(sys.modules), file=sys.stderr)
"""


def test_help_of_a_client_command_loads_neither_grpc_nor_the_server() -> None:
    command = [sys.executable, "-W", "error", "-c", LOADED]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: tokenwire generate ")
    assert done.stderr == "\n"


PREPARED = """
import os, sys
from tokenwire.cli.application import run
sys.argv = ["tokenwire", "version"]
run()
assert "grpc" not in sys.modules
# What C libraries that are loaded from now on see.
os.execv(sys.executable, [sys.executable, "-c", "import os; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"])
"""


def test_grpcs_fork_handlers_are_off_before_it_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREPARED], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"
