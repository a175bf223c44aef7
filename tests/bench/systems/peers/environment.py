"""An environment of Python packages for one peer, apart from the project's own."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import distributions
from pathlib import Path

# Runs a command with its output in the log. Raises OSError or SubprocessError if it fails.
Runner = Callable[[Sequence[str], Path], None]

# For what runs in such an environment: nothing of the project's own is imported.
APART = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
PEERS_FOLDER = Path(__file__).parents[4] / ".cache" / "bench" / "peers"
_REQUIREMENTS = Path(__file__).parent / "requirements"
_INSTALL_SECONDS = 900
# What pip says when it cannot reach an index; then it also says that no distribution was found.
_OFFLINE = ("name resolution", "NewConnectionError", "ConnectTimeout", "Network is unreachable", "ProxyError")
_NO_WHEEL = ("No matching distribution found", "is not a supported wheel", "requires a different Python")


def run_logged(command: Sequence[str], log: Path) -> None:
    """Runs a command with its output at the end of the log. Raises OSError or SubprocessError if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with log.open("ab") as output:
        subprocess.run(
            # The machine may be measuring something.
            ["nice", "-n", "10", *command] if shutil.which("nice") else [*command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=True,
            timeout=_INSTALL_SECONDS,
        )


class PeerEnvironment:
    """A virtual environment with what requirements/NAME.txt pins; kept until that file changes.

    Args:
        name: the peer's.
        folder: where all peers have theirs.
        run: runs a command; for tests.
    """

    def __init__(self, name: str, folder: Path = PEERS_FOLDER, run: Runner = run_logged) -> None:
        self._folder = folder / name
        self._log = folder / f"{name}.log"
        self._requirements = _REQUIREMENTS / f"{name}.txt"
        self._run = run

    def absent(self) -> str:
        """Builds the environment if there is none yet; returns why there is none, in a few words, else nothing."""
        wanted = hashlib.sha256(self._requirements.read_bytes() + sys.version.encode()).hexdigest()
        stamp = self._folder / "installed"
        if stamp.exists() and stamp.read_text() == wanted:
            return ""
        # Half an environment, or one of other versions, is of no use.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        try:
            self._run([sys.executable, "-m", "venv", str(self._folder)], self._log)
            self._run(self._install(), self._log)
        except subprocess.TimeoutExpired:
            return f"its packages do not install within {_INSTALL_SECONDS // 60} minutes"
        except (OSError, subprocess.SubprocessError):
            return _reason(self._log.read_text(errors="replace"))
        stamp.write_text(wanted)
        return ""

    def program(self, name: str) -> str:
        """Returns the path of a program in the environment."""
        return str(self._folder / "bin" / name)

    def version(self, distribution: str) -> str:
        """Returns the version of an installed distribution. Raises LookupError if it is not installed."""
        for one in distributions(name=distribution, path=[str(path) for path in self._packages()]):
            return one.version
        raise LookupError(f"{distribution} is not installed")

    def file(self, pattern: str) -> Path | None:
        """Returns a file of the installed packages, if there is one of this pattern."""
        return next((found for path in self._packages() for found in path.glob(pattern)), None)

    def _install(self) -> Sequence[str]:
        pip = [self.program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # Nothing is compiled here: it could take an hour.
        return [*pip, "--only-binary", ":all:", "--require-hashes", "-r", str(self._requirements)]

    def _packages(self) -> list[Path]:
        return sorted(self._folder.glob("lib/python*/site-packages"))


def _reason(log: str) -> str:
    if any(words in log for words in _OFFLINE):
        return "its packages cannot be fetched: no network"
    if any(words in log for words in _NO_WHEEL):
        return "no wheel of it for this platform"
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in log:
        return "a package is not the one that is pinned"
    if "No space left on device" in log:
        return "no space left for its packages"
    return "its packages do not install"
