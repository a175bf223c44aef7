"""kill -9 of the llama.cpp child of a real embedded gateway."""

import hashlib
import os
import signal
from pathlib import Path

import pytest

from engines.embedded import MODELS
from faults.processes import Gateway, Home
from faults.reading import Reader, reading
from harness.waiting import until
from tokenwire_client.core.options import Options

pytestmark = pytest.mark.llamacpp

PROMPT = "Once upon a time"
TOKENS = 48
GREEDY: Options = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}


def gateway_of(home: Home, **settings: str) -> Gateway:
    """Makes a gateway with the embedded engine."""
    small = {"slots": "2", "context_per_slot": "256", "threads": "1", "engine_restart_min_seconds": "0.05"}
    return home.gateway({"embedded": "llamacpp"}, cache_dir=str(MODELS), **small, **settings)


def child_of(gateway: Gateway) -> int:
    """Returns the child of a gateway."""
    children = Path(f"/proc/{gateway.pid}/task").glob("*/children")
    (child,) = [int(one) for path in children for one in path.read_text().split()]
    return child


async def whole(reader: Reader) -> None:
    """Waits for the end, and checks what can be said of any model's answer."""
    end = await reader.finished()
    (channel,) = end.channels
    data = reader.text.encode()
    assert (channel.bytes, channel.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert end.usage.output_tokens == channel.tokens == TOKENS


@pytest.mark.asyncio
async def test_a_killed_child_is_started_again_and_goes_on_with_the_answer(home: Home) -> None:
    gateway = gateway_of(home)
    await home.start(gateway)
    async with gateway.client() as client:
        unbroken = (await client.generate(PROMPT, **GREEDY)).text
        child = child_of(gateway)
        async with reading(client.stream, PROMPT, **GREEDY) as reader:
            await reader.reads(15)
            os.kill(child, signal.SIGKILL)
            await whole(reader)
        await until(lambda: not Path(f"/proc/{child}").exists(), "the child is gone")
        assert child_of(gateway) != child
        assert not reader.failures
        assert {one.engine for one in reader.dispatched} == {"embedded"}
        assert (reader.ways[0], reader.ways[-1]) == ("FIRST", "BY_TOKENS")
        # The same model, on the same machine, alone in its batch.
        assert reader.text == unbroken


@pytest.mark.asyncio
async def test_a_gateway_killed_with_its_child_goes_on_with_the_answer(home: Home) -> None:
    gateway = gateway_of(home, journal=f"file:{home.folder / 'journal'}")
    await home.start(gateway)
    child = child_of(gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, **GREEDY) as reader:
        await reader.reads(15)
        gateway.kill()
        # It does not outlive its parent.
        await until(lambda: not Path(f"/proc/{child}").exists(), "the child is gone")
        gateway.start()
        await whole(reader)
        assert (reader.ways[0], reader.ways[-1]) == ("FIRST", "BY_TOKENS")
