"""What the user wrote on standard input."""

import sys

from tokenwire.cli.failure import USAGE, CommandError


def given_or_piped(text: str | None) -> str | None:
    """Returns the argument, or all of standard input if that is `-` or was piped; None if there is neither."""
    if text is not None and text != "-":
        return text
    if text is None and sys.stdin.isatty():
        return None
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise CommandError("standard input is not UTF-8 text", exit_code=USAGE) from None
