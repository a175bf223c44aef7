"""What exporters complain about: a line now and then, without addresses."""

import enum
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

_log = structlog.get_logger()

EXPORTERS = "opentelemetry.exporter"
PAUSE_SECONDS = 60.0


class Trouble(logging.Handler):
    """Takes the lines of the SDK's exporters, which tell addresses, and writes one of its own instead.

    Args:
        monotonic: seconds that never go back.
        pause: how long it is silent after a line.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, pause: float = PAUSE_SECONDS) -> None:
        super().__init__(logging.WARNING)
        self._monotonic = monotonic
        self._pause = pause
        self._quiet_until = -float("inf")
        self._untold = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line, unless there was one a moment ago."""
        now = self._monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        self._quiet_until = now + self._pause
        untold, self._untold = self._untold, 0
        _log.warning("telemetry export", trouble=_text(record), cause=_cause(record), untold=untold)


@contextmanager
def in_our_words(handler: Trouble) -> Iterator[None]:
    """Gives the exporters' lines to the handler alone while the block runs."""
    logger = logging.getLogger(EXPORTERS)
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagated
        logger.removeHandler(handler)


def _text(record: logging.LogRecord) -> str:
    """Returns a line without its values; of one that was put together beforehand, nothing."""
    return record.msg if record.args and isinstance(record.msg, str) else ""


def _cause(record: logging.LogRecord) -> str | None:
    """Returns what can be told of a line's values: codes, and the kinds of errors; never their text."""
    values = record.args if isinstance(record.args, tuple) else ()
    told = [found for value in values if (found := _told(value))]
    if record.exc_info and record.exc_info[0] is not None:
        told.append(record.exc_info[0].__name__)
    return ", ".join(dict.fromkeys(told)) or None


def _told(value: object) -> str:
    match value:
        case enum.Enum():
            return value.name
        case bool() | float():
            return ""
        case int():
            return str(value)
        case BaseException():
            return type(value).__name__
        case _:
            return ""
