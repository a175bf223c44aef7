"""`tokenwire demo`: what `make run` does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from tokenwire.cli.failure import SERVER, CommandError
from tokenwire.cli.options import DEFAULT_TARGET, AnswerOptions

PROMPT = "Once upon a time"
MAX_TOKENS = 120

_SERVES = " serves on "
_READY = " is ready: "
# The drain of a server that has nothing to do is over at once.
_STOP_SECONDS = 60


def demo(
    prompt: Annotated[str, typer.Argument(help="The prompt.")] = PROMPT,
    listen: Annotated[str, typer.Option("--listen", help="The address to serve on.")] = DEFAULT_TARGET,
    engine: Annotated[
        str | None, typer.Option("--engine", help="The engine, as for serve; the embedded one if not given.")
    ] = None,
) -> None:
    """Starts a service, streams an answer, and stays until Ctrl-C; ends by itself when this is no terminal."""
    from tokenwire.cli.asking import prompt_answer
    from tokenwire.cli.connection import Connection

    with _service(listen, engine) as address:
        print(f'\nA client asks it to go on from "{prompt}":\n', flush=True)
        with Connection(address) as connection:
            prompt_answer(connection, prompt, AnswerOptions(max_tokens=MAX_TOKENS)).read()
        if sys.stdin.isatty() and sys.stdout.isatty():
            print(f"\nThe service goes on at {address}; the README has more to try. Ctrl-C ends it.", flush=True)
            sys.stdin.read()


@contextmanager
def _service(listen: str, engine: str | None) -> Iterator[str]:
    """Runs `tokenwire serve` as a child, and yields its address once it serves and its engine answers."""
    command = [sys.executable, "-m", "tokenwire", "serve", "--listen", listen, "--log-level", "warning"]
    if engine is not None:
        command += ["--engine", engine]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
    try:
        yield _address(child)
        child.terminate()
    except KeyboardInterrupt:
        # The terminal has told the child as well; a second signal would spoil its drain.
        print(flush=True)
    except BaseException:
        child.terminate()
        raise
    finally:
        child.communicate(timeout=_STOP_SECONDS)


def _address(child: "subprocess.Popen[str]") -> str:
    address = ""
    assert child.stdout is not None
    for line in child.stdout:
        print(line, end="", flush=True)
        if _SERVES in line:
            address = line.rpartition(_SERVES)[2].strip()
        if address and (_READY in line or line.rstrip().endswith(", ready")):
            return address
    raise CommandError("the service did not start", exit_code=child.wait() or SERVER)
