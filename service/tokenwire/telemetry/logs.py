"""Logs: structlog's own, and what libraries write by `logging`, in one form on standard error."""

import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

import structlog


def configure_logs(*, level: str, log_format: str) -> None:
    """Sends logs of at least this level to standard error: as JSON lines, or coloured for a terminal.

    Args:
        level: debug, info, warning or error. Libraries are heard from warning on, and on debug from info on.
        log_format: json, console, or auto: console on a terminal and JSON elsewhere.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    stream = cast("TextIO", _StandardError())
    rendering = _console() if console else _json()
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    libraries = logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING)
    logging.basicConfig(handlers=[handler], level=libraries, force=True)


def _console() -> list[Callable[..., Any]]:
    # The default traceback of a terminal shows local variables: prompts and keys.
    return [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    ]


def _json() -> list[Callable[..., Any]]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]


class _StandardError:
    """Standard error as it is at the moment: a progress bar takes its place for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
