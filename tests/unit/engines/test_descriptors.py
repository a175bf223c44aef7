"""A gateway that has no file descriptors left says so, and does not blame an engine."""

import os
import resource
from collections.abc import Generator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import pytest

from tokenwire.app import SYSTEM_CLOCK
from tokenwire.domain.errors import Code, EngineError
from tokenwire.engines.openai.adapter import OpenAIEngine
from tokenwire.engines.status import EngineState
from tokenwire.engines.upstream import Upstream
from unit.engines.scripted_http import always, reply, serving

BODY: dict[str, Any] = {"prompt": "hi"}


@contextmanager
def no_descriptors() -> Generator[None]:
    """Takes every file descriptor that there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in taken:
            os.close(one)


async def told(upstream: Upstream) -> None:
    await upstream.tell("/x", BODY, lambda payloads: False)


async def pulled(upstream: Upstream) -> None:
    async with aclosing(upstream.events("/x", BODY)) as reads:
        async for _ in reads:
            pass


async def asked(upstream: Upstream) -> None:
    await upstream.get("/x")


@pytest.mark.asyncio
@pytest.mark.parametrize("call", [told, pulled, asked])
async def test_without_descriptors_the_gateway_is_exhausted_and_the_engine_not_unreachable(call: Any) -> None:
    async with serving(always(reply(200, b"{}"))) as server:
        upstream = Upstream(server.url)
        try:
            with no_descriptors(), pytest.raises(EngineError) as caught:
                await call(upstream)
            assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "GATEWAY_EXHAUSTED")
            assert caught.value.retryable
            assert not server.requests
        finally:
            await upstream.close()


@pytest.mark.asyncio
async def test_a_check_without_descriptors_says_nothing_of_the_engine() -> None:
    models = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
    async with serving(always(reply(200, models, "connection: close"))) as server:
        engine = OpenAIEngine(name="e", url=server.url, clock=SYSTEM_CLOCK)
        try:
            await engine.check()
            assert engine.status.state is EngineState.READY
            with no_descriptors():
                await engine.check()
            assert engine.status.state is EngineState.READY
        finally:
            await engine.close()
