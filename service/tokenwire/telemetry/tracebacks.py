"""Tracebacks for logs: where it happened and of what kind it was, without what it said.

The text of an error that nobody expected may hold anything that was being worked on: a prompt, a key, an address. The
names of files are told from their package on, and lines of code not at all.
"""

import sys
import traceback
from collections.abc import Iterator
from pathlib import PurePath
from types import TracebackType
from typing import TextIO

from tokenwire.domain.errors import TokenwireError

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

# Of a chain of errors, and of a group.
_DEPTH_MAX = 8
_ROOTS = ("site-packages", "service", f"python{sys.version_info.major}.{sys.version_info.minor}")


def told(error: BaseException) -> str:
    """Returns the traceback of an error and of those that caused it, the first one first."""
    return "\n".join(_chain(error, 0))


def told_info(exc_info: ExcInfo) -> str:
    """The same for what `sys.exc_info` returns."""
    return told(exc_info[1])


def write_told(stream: TextIO, info: ExcInfo) -> None:
    """Writes the same to a stream."""
    stream.write("\n" + told(info[1]))


def _chain(error: BaseException, depth: int) -> Iterator[str]:
    if depth == _DEPTH_MAX:
        yield "..."
        return
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _chain(cause, depth + 1)
        yield "which led to:"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {_shown(frame.filename)}:{frame.lineno} in {frame.name}"
    yield _named(error)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions[:_DEPTH_MAX]:
            yield from ("  " + line for line in _chain(one, depth + 1))


def _named(error: BaseException) -> str:
    """Returns an error's kind, and its text where that is known to be clean."""
    name = type(error).__qualname__
    match error:
        case TokenwireError():
            return f"{name}: {error.code.name} {error.reason}"
        case OSError(errno=int(number)):
            return f"{name}: errno {number}"
        case _:
            return name


def _shown(filename: str) -> str:
    parts = PurePath(filename).parts
    for root in _ROOTS:
        if root in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(root) :])
    return "/".join(parts[-2:])
