"""What an open call holds for its span and its lines, and that a span ends whatever happens to the line."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context as Variables
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock, patch

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenwire.domain.context import RequestContext
from tokenwire.interceptors.telemetry import Telemetry
from tokenwire.telemetry import names
from tokenwire.telemetry.lean_tracer import LeanTracer, LeanTracers
from tokenwire.transport.call import Call

METHOD = "/tokenwire.v1.GenerateService/StreamGenerate"


def call(method: str = METHOD) -> Call:
    context = RequestContext(rpc_id="rpc-0", tenant="local", received_at=0.0)
    return cast("Call", SimpleNamespace(method=method, context=context, metadata={}, time_remaining=None, messages=0))


class Watched:
    """The interceptor, and the spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._interceptor = Telemetry(LeanTracers(provider).get_tracer(names.SCOPE), lambda: 1.0)

    async def serve(self, handler: Callable[[], Awaitable[Any]], method: str = METHOD) -> Any:
        """Serves a call as a transport does: in a task of its own."""

        async def serve(request: Any, call: Call) -> Any:
            return await handler()

        return await asyncio.create_task(self._call(method, serve))

    async def _call(self, method: str, serve: Any) -> Any:
        return await self._interceptor.around(None, call(method), serve)


async def here() -> tuple[Variables, trace.Span]:
    return copy_context(), trace.get_current_span()


@pytest.mark.asyncio
async def test_inside_a_call_its_span_is_the_current_one_at_the_price_of_one_variable() -> None:
    watched = Watched()
    before = copy_context()
    variables, span = await watched.serve(here)
    (ended,) = watched.exporter.get_finished_spans()
    assert span.get_span_context() == ended.context
    assert len(variables) == len(before) + 1
    # The task's variables end with it.
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.asyncio
async def test_calls_of_a_method_share_what_their_spans_begin_with() -> None:
    with patch.object(LeanTracer, "start_span", autospec=True, side_effect=LeanTracer.start_span) as begun:
        watched = Watched()
        for method in (METHOD, METHOD, "/tokenwire.v1.RunService/GetRun"):
            await watched.serve(here, method)
    first, second, other = (one.kwargs["attributes"] for one in begun.call_args_list)
    assert first is second
    assert first == {"rpc.system.name": "grpc", "rpc.method": METHOD.removeprefix("/")}
    assert other["rpc.method"] == "tokenwire.v1.RunService/GetRun"
    told = [dict(span.attributes or {}) for span in watched.exporter.get_finished_spans()]
    assert [one["tokenwire.rpc.id"] for one in told] == ["rpc-0"] * 3


@pytest.mark.asyncio
async def test_a_span_ends_even_if_its_line_cannot_be_written() -> None:
    watched = Watched()
    log = Mock(info=Mock(side_effect=BrokenPipeError))
    with patch("tokenwire.interceptors.telemetry._log", log), pytest.raises(BrokenPipeError):
        await watched.serve(here)
    assert len(watched.exporter.get_finished_spans()) == 1
