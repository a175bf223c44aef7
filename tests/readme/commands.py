"""The README's commands, as a test can run them."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from harness.chosen_transport import VARIABLE, VARIABLES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = ROOT / ".cache" / "models"
ADDRESS = "127.0.0.1:50051"


def blocks(language: str) -> list[str]:
    """Returns the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def lines(program: str) -> list[str]:
    """Returns the shell lines that run a program."""
    found = [line.strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in found if program in shlex.split(line)]


def grpcurl(line: str, address: str) -> list[str]:
    """Returns what runs a grpcurl line: grpcurl itself, or buf curl where there is none."""
    if shutil.which("grpcurl"):
        return shlex.split(line.replace(ADDRESS, address))
    words = shlex.split(line)[1:]
    words.remove("-plaintext")
    data = words.pop(words.index("-d") + 1) if "-d" in words else "{}"
    words = [word for word in words if word != "-d"]
    buf = ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    if words[1] in ("list", "describe"):
        return [*buf, "--list-methods", f"http://{address}"]
    return [*buf, "--data", data, f"http://{address}/{words[1]}"]


def tokenwire(line: str) -> tuple[list[str], dict[str, str]]:
    """Returns what runs a tokenwire line, and its variables."""
    words = shlex.split(line)
    at = words.index("tokenwire")
    variables = dict(word.split("=", 1) for word in words[:at]) | {"TOKENWIRE_CACHE_DIR": str(MODELS)}
    inherited = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return [sys.executable, "-m", "tokenwire", *words[at + 1 :]], inherited | VARIABLES | variables
