"""kill -9 of an engine: another one goes on, or the same one once it is back."""

import pytest

from faults.engine import expected
from faults.processes import EngineProcess, Gateway, Home
from faults.reading import PROMPT, reading, whole
from tokenwire.v1.run_pb2 import FAILOVER_POLICY_BEFORE_FIRST_TOKEN, FAILOVER_POLICY_NONE, FailoverPolicy
from tokenwire.v1.sampling_pb2 import Stopping
from tokenwire_client import RunFailedError
from tokenwire_client.core.options import Options

TOKENS = 110


async def pair(home: Home, hold: int | None = None, **settings: str) -> tuple[EngineProcess, EngineProcess, Gateway]:
    """Starts two engines, and a gateway that prefers the first, which may wait after so many tokens."""
    one, two = home.engine(hold=hold), home.engine()
    gateway = home.gateway({"one": one, "two": two}, **settings)
    await home.start(one, two, gateway)
    return one, two, gateway


@pytest.mark.asyncio
async def test_an_engine_killed_before_its_first_token_is_no_loss(home: Home) -> None:
    one, two, gateway = await pair(home, hold=0)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await one.busy()
        one.kill()
        await whole(reader, PROMPT, TOKENS)
    assert not one.alive
    assert [one.engine for one in reader.dispatched] == ["one", "two"]
    assert reader.ways == ["FIRST", "FIRST"]
    assert not reader.failures
    await two.idle()


@pytest.mark.asyncio
@pytest.mark.parametrize(("n", "at"), [(1, 1), (1, 60), (2, 50), (5, 1)])
async def test_an_engine_killed_after_text_is_gone_on_for_by_the_other(home: Home, n: int, at: int) -> None:
    # Every choice has text then, and none has all.
    one, two, gateway = await pair(home, hold=at + 2)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS, n=n) as reader:
        await reader.comes(lambda: len(reader.texts) == n and reader.tokens >= n * at)
        one.kill()
        await whole(reader, PROMPT, TOKENS, n)
    assert not one.alive
    assert [one.engine for one in reader.dispatched] == ["one", "two"]
    assert reader.ways == ["FIRST", "BY_TOKENS"]
    assert not reader.failures
    await two.idle()


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [50, 65])
@pytest.mark.parametrize("told", [False, True], ids=["left out", "included"])
async def test_a_stop_string_over_the_joint_stops_the_answer(home: Home, first: int, told: bool) -> None:
    # The first engine writes 66 tokens, and cannot see that this becomes a stop string.
    before, joint, after = (expected(PROMPT, tokens) for tokens in (first, 66, 72))
    stop = after.removeprefix(before)
    one, two, gateway = await pair(home, hold=66)
    options: Options = {"max_tokens": TOKENS, "stop": stop, "stopping": Stopping(include_stop=told)}
    async with gateway.client() as client, reading(client.stream, PROMPT, **options) as reader:
        # It holds back what may be a stop string's beginning.
        await reader.comes(lambda: len(reader.text) == len(joint) - len(stop) + 1)
        one.kill()
        end = await reader.finished()
    assert reader.text == (after if told else before)
    assert end.choices[0].matched_stop.text == stop
    assert reader.ways == ["FIRST", "BY_TOKENS"]
    await two.idle()


@pytest.mark.asyncio
async def test_engines_killed_in_turn_again_and_again_leave_one_whole_answer(home: Home) -> None:
    one, two, gateway = await pair(home, hold=40)
    two.kill()
    two.hold(40)
    await home.start(two)
    tokens, engines = 300, {"one": one, "two": two}
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=tokens) as reader:
        for kills in range(1, 6):
            # Each writes 40 tokens; the last of them may be a part of a character.
            await reader.reads(40 * kills - 4)
            victim = engines[reader.dispatched[-1].engine]
            victim.kill()
            if kills == 5:
                one.hold(None)
                two.hold(None)
                await engines["two" if victim is one else "one"].release()
            victim.start()
        await whole(reader, PROMPT, tokens)
    assert len(reader.dispatched) == 6
    assert reader.ways == ["FIRST", *["BY_TOKENS"] * 5]
    assert {one.engine for one in reader.dispatched} == {"one", "two"}
    assert not reader.failures
    for engine in engines.values():
        await engine.ready()
        await engine.idle()


@pytest.mark.asyncio
async def test_both_engines_killed_at_once_are_waited_for(home: Home) -> None:
    one, two, gateway = await pair(home, hold=40, failover_seconds="20")
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(40)
        two.kill()
        one.kill()
        # It has noticed, before one of them is back.
        await gateway.misses("one", "two")
        assert not reader.over
        two.start()
        await whole(reader, PROMPT, TOKENS)
    assert (reader.dispatched[0].engine, reader.dispatched[-1].engine) == ("one", "two")
    assert not reader.failures
    await two.idle()


@pytest.mark.asyncio
async def test_the_only_engine_goes_on_itself_when_it_is_back(home: Home) -> None:
    engine = home.engine(hold=40)
    gateway = home.gateway({"one": engine})
    await home.start(engine, gateway)
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(40)
        engine.kill()
        engine.hold(None)
        engine.start()
        await whole(reader, PROMPT, TOKENS)
    assert {one.engine for one in reader.dispatched} == {"one"}
    assert reader.ways[-1] == "BY_TOKENS"
    await engine.idle()


@pytest.mark.asyncio
async def test_engines_that_do_not_come_back_end_the_run_with_its_text_so_far(home: Home) -> None:
    one, two, gateway = await pair(home, hold=40, failover_seconds="0.5")
    async with gateway.client() as client, reading(client.stream, PROMPT, max_tokens=TOKENS) as reader:
        await reader.reads(40)
        two.kill()
        one.kill()
        error = await reader.failed()
        assert isinstance(error, RunFailedError)
        assert (error.code.name, error.reason) in {("DATA_LOSS", "ENGINE_LOST"), ("DATA_LOSS", "ENGINE_UNREACHABLE")}
        assert error.cursor == reader.cursor
        assert error.text == reader.text
        assert expected(PROMPT, TOKENS).startswith(reader.text)
        assert len(reader.text) >= len(expected(PROMPT, 40))
        # P10: when the fault ends, the next request is answered.
        two.start()
        assert (await client.generate(PROMPT, max_tokens=TOKENS)).text == expected(PROMPT, TOKENS)


@pytest.mark.asyncio
@pytest.mark.parametrize("policy", [FAILOVER_POLICY_NONE, FAILOVER_POLICY_BEFORE_FIRST_TOKEN], ids=["none", "before"])
async def test_a_request_that_wants_no_continuation_ends_with_what_happened(
    home: Home, policy: FailoverPolicy.ValueType
) -> None:
    one, two, gateway = await pair(home, hold=40)
    async with (
        gateway.client() as client,
        reading(client.stream, PROMPT, max_tokens=TOKENS, failover=policy) as reader,
    ):
        await reader.reads(40)
        one.kill()
        error = await reader.failed()
    assert isinstance(error, RunFailedError)
    assert (error.code.name, error.reason) == ("DATA_LOSS", "ENGINE_LOST")
    assert expected(PROMPT, TOKENS).startswith(reader.text)
    assert len(reader.dispatched) == 1
    assert (await two.counts())["started"] == 0
