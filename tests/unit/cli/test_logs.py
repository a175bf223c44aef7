"""Logs of a service: JSON for machines, colours for people, and no values of variables for either."""

import json
import subprocess
import sys

import pytest

from harness.command_line import environment

PROGRAM = """
import logging, sys, structlog
from tokenwire.telemetry.logs import configure_logs
log = structlog.get_logger()
configure_logs(level=sys.argv[1], log_format=sys.argv[2])
log.debug("small", n=1)
log.info("made", name="ça", n=2)
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("beware of %s", "dogs")
def fail():
    secret = "sk-" + "hidden"
    raise ValueError("broken")
try:
    fail()
except ValueError:
    log.exception("bug")
"""


def logged(level: str, log_format: str) -> str:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, level, log_format]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "sk-hidden" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_away_from_a_terminal_each_line_is_json(log_format: str) -> None:
    made, beware, bug = [json.loads(line) for line in logged("info", log_format).splitlines()]
    assert (made["event"], made["level"], made["name"], made["n"]) == ("made", "info", "ça", 2)
    assert made["timestamp"].endswith("Z")
    assert (beware["event"], beware["level"], beware["logger"]) == ("beware of dogs", "warning", "library")
    assert bug["exception"] == "  <string>:14 in <module>\n  <string>:12 in fail\nValueError"


def test_console_lines_are_for_people() -> None:
    text = logged("info", "console")
    assert "[info     ] made " in text
    assert "in fail\nValueError\n" in text
    assert "broken" not in text
    assert "{" not in text


def test_the_level_is_kept() -> None:
    events = [json.loads(line)["event"] for line in logged("debug", "json").splitlines()]
    assert events == ["small", "made", "chatter", "beware of dogs", "bug"]
    events = [json.loads(line)["event"] for line in logged("error", "json").splitlines()]
    assert events == ["bug"]
