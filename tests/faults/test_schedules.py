"""Schedules of random faults over real processes and channels: every stream ends whole."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import pytest
from google.protobuf.json_format import ParseDict

from faults.engine import expected
from faults.plan import FAULTS, Asked, Plan, plan
from faults.processes import ClientProcess, Home
from faults.reading import Reader, reading, whole
from faults.stage import stage
from harness.waiting import until
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire_client import AsyncClient, Policy
from tokenwire_client.core.options import Options

# Played by default; `make test-faults` plays more.
SCHEDULES = 24
# So many have every fault.
ALL_FAULTS = 48
AT_ONCE = 4
SECONDS = 60.0
POLICY = Policy(first_wait=0.02, longest_wait=0.3, silence=2.0, attempts=1000)
TOKENS = 80


@pytest.mark.asyncio
async def test_streams_end_whole_whatever_fails(home: Home, pytestconfig: pytest.Config) -> None:
    only = pytestconfig.getoption("--fault-seed", default=None)
    count = pytestconfig.getoption("--fault-schedules", default=None) or SCHEDULES
    fired = await all_played(home, range(count) if only is None else [only])
    assert fired
    if count >= ALL_FAULTS and only is None:
        assert set(fired) == {fault for faults in FAULTS.values() for fault in faults}


async def all_played(home: Home, seeds: Iterable[int]) -> Counter[str]:
    """Plays schedules, a few at a time; returns what faults there were."""
    fired: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)

    async def play(seed: int) -> None:
        chosen = plan(seed)
        async with turns:
            try:
                async with asyncio.timeout(SECONDS):
                    fired.update(await played(home, chosen))
            except Exception as error:
                error.add_note(chosen.told())
                raise

    async with asyncio.TaskGroup() as group:
        for seed in seeds:
            group.create_task(play(seed), name=f"schedule {seed}")
    return fired


async def played(home: Home, chosen: Plan) -> Counter[str]:
    """Plays a schedule, checks it, and returns what faults there were."""
    prompt = f"Doomed {chosen.seed}"
    async with stage(home, chosen) as place, AsyncClient(place.line.address, policy=POLICY) as client:
        doomed = home.client(place.line.address, prompt, TOKENS, grace=30.0, request_id="doomed")
        doomed.start()
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(reading(client.stream, one.prompt, **options(one)))
                for one in chosen.streams
            ]
            total = sum(one.tokens * one.n for one in chosen.streams)
            async with asyncio.TaskGroup() as faults:
                for fault in chosen.faults:
                    await read(readers, total * fault.at)
                    if fault.name == "client killed":
                        doomed.kill()
                        place.fired[fault.name] += 1
                    else:
                        faults.create_task(place.strike(fault), name=fault.name)
            for one, reader in zip(chosen.streams, readers, strict=True):
                await whole(reader, one.prompt, one.tokens, one.n)
        await taken_up(client, doomed, prompt)
        for engine in place.engines:
            await engine.idle()
        return place.fired


def options(asked: Asked) -> Options:
    """Returns what a stream asks for."""
    given: Options = {"max_tokens": asked.tokens, "n": asked.n}
    if asked.size:
        given["delivery"] = Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=asked.size))
    return given


async def read(readers: Sequence[Reader], tokens: float) -> None:
    """Waits until so many tokens were read by all together."""
    await until(
        lambda: sum(one.tokens for one in readers) >= tokens or all(one.over for one in readers), "progress", SECONDS
    )


async def taken_up(client: AsyncClient, doomed: ClientProcess, prompt: str) -> None:
    """Checks what a client process has read, and takes up what it has left."""
    if doomed.killed:
        told = doomed.told
        if told:
            after = ParseDict(told[-1]["cursor"], Cursor())
            rest = client.attach(request_id="doomed", after=after)
        else:
            rest = client.stream(prompt, max_tokens=TOKENS, request_id="doomed")
        async with rest as stream:
            text = "".join(one["text"] for one in told) + (await stream.result()).text
    else:
        assert await doomed.ended() == 0, doomed.output
        text = doomed.text
    assert text == expected(prompt, TOKENS)
