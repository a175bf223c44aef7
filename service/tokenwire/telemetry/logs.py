"""Logs: structlog's own, and what libraries write by `logging`, in one form on standard error."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO, cast

import structlog
from opentelemetry import trace
from opentelemetry.context import attach, create_key, get_value, set_value

from tokenwire.telemetry.tracebacks import told_info, write_told

# They tell the address of every request from level info on.
_TELLTALES = ("httpx", "httpcore", "aiohttp.access")
_RPC_ID = create_key("tokenwire-rpc-id")


def enter(rpc_id: str, span: trace.Span) -> None:
    """From now on this task, and what it begins, is inside a span, and each of its lines tells the RPC and its trace.

    Also those that libraries write. A task ends, and its variables with it: one variable, since each open call has it.
    """
    attach(set_value(_RPC_ID, rpc_id, trace.set_span_in_context(span)))


def configure_logs(*, level: str, log_format: str) -> None:
    """Sends logs of at least this level to standard error: as JSON lines, or coloured for a terminal.

    Args:
        level: debug, info, warning or error. Libraries are heard from warning on, and on debug from info on.
        log_format: json, console, or auto: console on a terminal and JSON elsewhere.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        _told_ids,
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
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, _first_line],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    libraries = logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING)
    logging.basicConfig(handlers=[handler], level=libraries, force=True)
    for name in _TELLTALES:
        logging.getLogger(name).setLevel(logging.WARNING)


def _console() -> list[Callable[..., Any]]:
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=write_told)]


def _json() -> list[Callable[..., Any]]:
    return [
        structlog.processors.ExceptionRenderer(told_info),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _told_ids(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Tells the RPC and the trace that a line belongs to."""
    rpc_id = get_value(_RPC_ID)
    if rpc_id is not None:
        event.setdefault("rpc_id", rpc_id)
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event.setdefault("trace_id", trace.format_trace_id(context.trace_id))
            event.setdefault("span_id", trace.format_span_id(context.span_id))
    return event


def _first_line(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leaves out what libraries tell below their first line: asyncio shows tasks there, with errors and files."""
    event["event"] = str(event["event"]).partition("\n")[0]
    return event


class _StandardError:
    """Standard error as it is at the moment: a progress bar takes its place for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
