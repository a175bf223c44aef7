"""The command line: a client of a running service, and `serve`, which runs one."""

import os
import sys
from typing import NoReturn

__all__ = ["main"]

INTERRUPTED = 130

# With it, gRPC starts threads in a child between fork and exec, where they crash now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def main() -> NoReturn:
    """Runs the command that the process's arguments name, and ends the process with its exit code."""
    try:
        # Loading takes a moment, in which Ctrl-C must be as quiet as later.
        from tokenwire.cli.application import run

        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except ModuleNotFoundError as missing:
        print(f"tokenwire: {missing.name} is missing: pip install 'tokenwire[server,embedded]'", file=sys.stderr)
        code = 1
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more.
            continue
    # gRPC threads may outlive the interpreter and call into it while it goes (grpcio 1.85.1, seen as a segmentation
    # fault at exit); all that is ours has been closed.
    os._exit(code)
