"""A process that has loaded all that servers need, and forks them: a start takes a moment, not a second.

It reads a line of JSON for each wish and answers with one; when its input ends, it kills all it has started.
"""

import asyncio
import json
import os
import signal
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn


def main() -> None:
    """Serves until the input ends."""
    # Warnings are errors in the children too.
    warnings.simplefilter("error")
    _load()
    children: set[int] = set()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        wish = json.loads(line)
        if wish["do"] == "start":
            pid = os.fork()
            if not pid:
                _become(wish)
            children.add(pid)
            print(json.dumps(pid), flush=True)
        else:
            pid, status = os.waitpid(wish["pid"], 0 if wish["do"] == "wait" else os.WNOHANG)
            children.discard(pid)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # What was loaded only to be forked need not be taken down with care.
    os._exit(0)


def _load() -> None:
    for name in (
        "faults.client",
        "faults.engine",
        "tokenwire.app",
        "tokenwire.cli.application",
        "tokenwire.cli.serve",
        "tokenwire.journal.redis.journal",
    ):
        import_module(name)


def _become(wish: dict[str, Any]) -> NoReturn:
    """Makes a child the program that was asked for."""
    try:
        log = os.open(wish["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        os.close(log)
        os.close(nothing)
        signal.signal(signal.SIGUSR1, lambda number, frame: _tell_tasks())
        name, arguments = wish["program"], wish["arguments"]
        sys.argv = [name, *arguments]
        if name == "tokenwire":
            from tokenwire.cli import main as run

            run()
        elif name == "engine":
            from faults.engine import main as serve

            serve(arguments)
        else:
            from faults.client import main as read

            read(arguments)
    finally:
        sys.stdout.flush()
        # Neither the nursery's own end nor threads that are left are any of its business.
        os._exit(1 if sys.exc_info()[0] else 0)


def _tell_tasks() -> None:
    """Prints what each task waits for: for processes that hang."""
    for task in asyncio.all_tasks():
        where = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack()]
        print(task.get_name(), *where, flush=True)


if __name__ == "__main__":
    main()
