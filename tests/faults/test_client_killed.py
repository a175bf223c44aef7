"""kill -9 of a client in the middle of its stream."""

import pytest
from google.protobuf.json_format import ParseDict

from faults.engine import expected
from faults.processes import Home
from faults.reading import PROMPT
from harness.waiting import until
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire_client import RunFailedError

TOKENS = 120
# More than what is written at all while a test looks.
ENDLESS = 8000


@pytest.mark.asyncio
async def test_a_killed_client_without_grace_stops_the_engine_and_the_run(home: Home) -> None:
    engine = home.engine()
    gateway = home.gateway({"one": engine})
    await home.start(engine, gateway)
    client = home.client(gateway.address, PROMPT, ENDLESS, grace=0.0, request_id="mine")
    client.start()
    await until(lambda: len(client.text) > 40, "it reads")
    await engine.busy()
    client.kill()
    assert not client.alive
    await engine.idle()
    async with gateway.client() as other:
        with pytest.raises(RunFailedError) as failed:
            await other.wait(request_id="mine")
    assert (failed.value.code.name, failed.value.reason) == ("ABORTED", "ORPHANED")
    assert failed.value.text.startswith(client.text)
    assert expected(PROMPT, ENDLESS).startswith(failed.value.text)


@pytest.mark.asyncio
@pytest.mark.parametrize("after_cursor", [True, False], ids=["after its cursor", "from the start"])
async def test_another_client_takes_up_what_a_killed_one_was_reading(home: Home, after_cursor: bool) -> None:
    engine = home.engine()
    gateway = home.gateway({"one": engine})
    await home.start(engine, gateway)
    client = home.client(gateway.address, PROMPT, TOKENS, grace=30.0, request_id="mine")
    client.start()
    await until(lambda: len(client.text) > 40, "it reads")
    client.kill()
    told = client.told
    after = ParseDict(told[-1]["cursor"], Cursor()) if after_cursor else None
    async with gateway.client() as other, other.attach(request_id="mine", after=after) as stream:
        rest = (await stream.result()).text
    read = "".join(one["text"] for one in told) if after_cursor else ""
    assert read + rest == expected(PROMPT, TOKENS)
    assert (await engine.counts())["started"] == 1
    await engine.idle()


@pytest.mark.asyncio
async def test_a_killed_command_line_leaves_a_run_that_another_one_reads(home: Home) -> None:
    engine = home.engine()
    gateway = home.gateway({"one": engine})
    await home.start(engine, gateway)
    asked = ("generate", PROMPT, "--max-tokens", str(TOKENS), "--request-id", "mine", "--target", gateway.address)
    first = home.command(*asked)
    first.start()
    await until(lambda: len(first.output) > 40, "it reads")
    first.kill()
    second = home.command(*asked)
    second.start()
    assert await second.ended() == 0
    assert expected(PROMPT, TOKENS) in second.output
    assert (await engine.counts())["started"] == 1
