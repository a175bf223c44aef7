"""One line in the log and one span for each RPC."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.telemetry import names
from tokenwire.transport.call import AbortedError, Call, ClientGoneError, Handler

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
    """Says of each RPC how it ended and how long it took."""

    def __init__(self, tracer: Tracer, monotonic: Callable[[], float]) -> None:
        self._tracer = tracer
        self._monotonic = monotonic

    async def around(self, request: Any, call: Call, proceed: Handler) -> Any:
        """Serves the call inside its span."""
        span = self._tracer.start_span(
            call.method.removeprefix("/"),
            context=propagate.extract(call.metadata),
            kind=SpanKind.SERVER,
            attributes={names.RPC_SYSTEM: "grpc", names.RPC_METHOD: call.method.removeprefix("/")},
        )
        code, reason = Code.OK, ""
        granted = call.time_remaining
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                return await proceed(request, call)
            except TokenwireError as error:
                code, reason = error.code, error.reason
                raise
            except AbortedError as error:
                code = error.code
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
                span.set_attribute(names.RPC_STATUS, code.name)
                if code in _FAULTS:
                    span.set_status(Status(StatusCode.ERROR))
                    span.set_attribute(names.ERROR_TYPE, reason or code.name)
                self._line(call, code, reason, trace.format_trace_id(span.get_span_context().trace_id))

    def _line(self, call: Call, code: Code, reason: str, trace_id: str) -> None:
        write = _log.debug if call.method.startswith(_QUIET) else _log.info
        write(
            "rpc",
            method=call.method,
            code=code.name,
            reason=reason or None,
            ms=round((self._monotonic() - call.context.received_at) * 1000, 1),
            messages=call.messages,
            rpc_id=call.context.rpc_id,
            trace_id=trace_id,
        )


def _left(call: Call, granted: float | None) -> Code:
    """Tells a client that left from one whose deadline passed: nothing else differs.

    A client's own clock is first to say so: the server's begins later, and gRPC rounds a timeout up, by 1 % at most.
    """
    remaining = call.time_remaining
    if remaining is None or granted is None:
        return Code.CANCELLED
    return Code.DEADLINE_EXCEEDED if remaining <= max(LATE_SECONDS, LATE_SHARE * granted) else Code.CANCELLED
