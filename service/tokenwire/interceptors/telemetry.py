"""One line in the log, one span and one measurement for each RPC."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.telemetry import names
from tokenwire.telemetry.logs import enter
from tokenwire.telemetry.propagation import remote_context
from tokenwire.telemetry.words import Words, is_reason
from tokenwire.transport.call import Call, ClientGoneError, Handler

_log = structlog.get_logger()

# What probes and debuggers call all the time.
_QUIET = "/grpc."
# How long before the server's own deadline a client that leaves has met its own.
LATE_SECONDS = 0.05
LATE_SHARE = 0.02
# gRPC's own statuses that mean a fault of the server (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/).
_FAULTS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)


class Telemetry:
    """Says of each RPC how it ended and how long it took.

    Args:
        tracer: makes the spans.
        monotonic: seconds that never go back.
        duration: is told how long each RPC took.
    """

    def __init__(self, tracer: Tracer, monotonic: Callable[[], float], duration: Histogram | None = None) -> None:
        self._tracer = tracer
        self._monotonic = monotonic
        self._duration = duration
        self._reasons = Words(is_reason)
        self._methods: dict[str, Mapping[str, str]] = {}

    async def around(self, request: Any, call: Call, proceed: Handler) -> Any:
        """Serves the call inside its span."""
        about = self._about(call.method)
        method = about[names.RPC_METHOD]
        span = self._tracer.start_span(
            names.SPAN_UNKNOWN_RPC if method == names.OTHER else method,
            context=remote_context(call.metadata),
            kind=SpanKind.SERVER,
            attributes=about,
        )
        # Each RPC is a task of its own; so is what it begins, such as its run, whose lines then tell it too.
        enter(call.context.rpc_id, span)
        code, reason = Code.OK, ""
        granted = call.time_remaining
        try:
            return await proceed(request, call)
        except TokenwireError as error:
            code, reason = error.code, error.reason
            raise
        except ClientGoneError:
            code = _left(call, granted)
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            code = _left(call, granted) if task is not None and task.cancelling() else Code.INTERNAL
            raise
        except BaseException:
            code = Code.INTERNAL
            raise
        finally:
            self._ended(call, span, code, reason)

    def _about(self, method: str) -> Mapping[str, str]:
        """Returns what all calls of a method share; there are as many as the server has, and one for unknown ones."""
        found = self._methods.get(method)
        if found is None:
            found = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: method.removeprefix("/")}
            self._methods[method] = found
        return found

    def _ended(self, call: Call, span: Span, code: Code, reason: str) -> None:
        seconds = self._monotonic() - call.context.received_at
        if span.is_recording():
            told = {names.RPC_ID: call.context.rpc_id, names.RPC_STATUS: code.name}
            if code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR))
                told[names.ERROR_TYPE] = reason or code.name
            span.set_attributes(told)
        span.end()
        if self._duration is not None:
            labels = {**self._about(call.method), names.RPC_STATUS: code.name}
            if code in _FAULTS:
                labels[names.ERROR_TYPE] = self._reasons.label(reason) if reason else code.name
            self._duration.record(seconds, labels)
        _line(call, code, reason, seconds, span)


def _line(call: Call, code: Code, reason: str, seconds: float, span: Span) -> None:
    write = _log.debug if call.method.startswith(_QUIET) else _log.info
    found = span.get_span_context()
    write(
        "rpc",
        method=call.method,
        code=code.name,
        reason=reason or None,
        ms=round(seconds * 1000, 1),
        messages=call.messages,
        rpc_id=call.context.rpc_id,
        trace_id=trace.format_trace_id(found.trace_id) if found.is_valid else None,
    )


def _left(call: Call, granted: float | None) -> Code:
    """Tells a client that left from one whose deadline passed: nothing else differs.

    A client's own clock is first to say so: the server's begins later, and gRPC rounds a timeout up, by 1 % at most.
    """
    remaining = call.time_remaining
    if remaining is None or granted is None:
        return Code.CANCELLED
    return Code.DEADLINE_EXCEEDED if remaining <= max(LATE_SECONDS, LATE_SHARE * granted) else Code.CANCELLED
