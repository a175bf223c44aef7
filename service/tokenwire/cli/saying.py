"""What people are told beside the output."""

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Tells it on standard error."""
    with suppress(OSError):
        print(f"tokenwire: {text}", file=sys.stderr, flush=True)
