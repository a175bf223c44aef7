"""The load programs, built with Go when their sources are newer."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "load"
FOLDER = Path(__file__).parents[2] / ".cache" / "bench" / "bin"
_NAMES = ("engine", "client")
_BUILD_SECONDS = 600


class ProgramsError(RuntimeError):
    """The load programs cannot be built here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the load programs are; load/README.md tells how they are used.

    Attributes:
        engine: writes tokens.
        client: counts them.
    """

    engine: Path
    client: Path


def ensure(folder: Path = FOLDER) -> Programs:
    """Returns the load programs in a folder, built if there are none or their sources are newer.

    Raises ProgramsError if there is no Go, or if it fails.
    """
    built = Programs(engine=folder / "engine", client=folder / "client")
    changed = max(path.stat().st_mtime_ns for path in _sources())
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for name in _NAMES:
            program = folder / name
            if not program.exists() or program.stat().st_mtime_ns < changed:
                _build(name, program)
    return built


def go() -> str:
    """Returns the path of Go. Raises ProgramsError if there is none."""
    found = shutil.which("go")
    if found is None:
        raise ProgramsError("the load programs are written in Go, and there is no `go` on the path")
    return found


def _sources() -> Iterator[Path]:
    yield from (SOURCES / "go.mod", SOURCES / "go.sum")
    yield from (path for path in SOURCES.rglob("*.go") if not path.name.endswith("_test.go"))


def _build(name: str, program: Path) -> None:
    fresh = program.with_suffix(".new")
    began = time.time_ns()
    command = [go(), "build", "-trimpath", "-o", str(fresh), f"./{name}"]
    environment = os.environ | {"CGO_ENABLED": "0"}
    try:
        subprocess.run(
            command, cwd=SOURCES, env=environment, check=True, capture_output=True, text=True, timeout=_BUILD_SECONDS
        )
    except subprocess.CalledProcessError as error:
        raise ProgramsError(f"go cannot build the load program {name}:\n{error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramsError(f"go took more than {_BUILD_SECONDS} s to build the load program {name}") from error
    # A source that is changed during a build is newer than what is built.
    os.utime(fresh, ns=(began, began))
    # At once, as somebody may be running the old one.
    fresh.replace(program)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps others from building meanwhile."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
