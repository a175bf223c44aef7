"""The bound on calls that stay open: which count, who may take the reserve, and that every place comes back."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.interceptors.admission import (
    RESUMING,
    RETRY_MAX_SECONDS,
    RETRY_MIN_SECONDS,
    WAITING,
    Admission,
    Verdict,
    counts,
    with_reserve,
    without_reserve,
)
from tokenwire.rpc.methods import SERVICES
from tokenwire.transport.call import Call, Kind

STREAM = "/tokenwire.v1.GenerateService/StreamGenerate"
ATTACH = "/tokenwire.v1.RunService/AttachRun"
GET = "/tokenwire.v1.RunService/GetRun"
# What each method is: a new one has to be put into one of these on purpose.
OPEN = {
    "GenerateService": {"Generate", "StreamGenerate"},
    "ChatService": {"Chat", "StreamChat"},
    "RunService": {"AttachRun", "WaitRun"},
    "BatchService": {"BatchGenerate"},
}
AT_ONCE = {
    "RunService": {"GetRun", "ListRuns", "CancelRun"},
    "ModelService": {"ListModels", "GetModel", "Tokenize", "Detokenize"},
    "ServerService": {"GetServerInfo"},
}


def call(method: str, kind: Kind = Kind.SERVER_STREAM) -> Call:
    return cast("Call", SimpleNamespace(method=method, kind=kind))


def admission(streams_max: int, verdicts: list[Verdict] | None = None) -> Admission:
    tell = (lambda verdict: None) if verdicts is None else verdicts.append
    return Admission(streams_max, rng=random.Random(0), tell=tell)


def test_every_method_either_stays_open_and_counts_or_answers_at_once() -> None:
    kinds = {(False, False): Kind.UNARY, (False, True): Kind.SERVER_STREAM, (True, True): Kind.BIDI}
    found: dict[bool, dict[str, set[str]]] = {True: {}, False: {}}
    known = set()
    for service in SERVICES:
        for method in service.methods:
            name = f"/{service.full_name}/{method.name}"
            counted = counts(call(name, kinds[method.client_streaming, method.server_streaming]))
            found[counted].setdefault(service.name, set()).add(method.name)
            known.add(name)
    assert found == {True: OPEN, False: AT_ONCE}
    assert known >= WAITING | RESUMING


@pytest.mark.parametrize("kind", list(Kind))
def test_health_and_reflection_never_count_nor_do_methods_that_do_not_exist(kind: Kind) -> None:
    assert not counts(call("/grpc.health.v1.Health/Watch", kind))
    assert not counts(call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", kind))
    assert not counts(call("/_OTHER", kind))


@given(st.integers(1, 10**6))
def test_the_bound_comes_back_out_of_the_bound_with_its_reserve(streams_max: int) -> None:
    whole = with_reserve(streams_max)
    assert streams_max < whole <= streams_max * 1.1 + 1
    assert without_reserve(whole) == streams_max
    # Of any number, no more than there are.
    assert with_reserve(without_reserve(streams_max)) <= streams_max


@pytest.mark.asyncio
async def test_a_refusal_says_that_another_server_may_have_room_and_when_to_come_back() -> None:
    entered: list[Any] = []

    async def proceed(request: Any, call: Call) -> None:
        entered.append(request)

    verdicts: list[Verdict] = []
    gate = admission(0, verdicts)
    waits = set()
    for _ in range(100):
        with pytest.raises(TokenwireError) as caught:
            await gate.around(b"\xff", call(STREAM), proceed)
        error = caught.value
        assert (error.code, error.reason, error.retryable) == (Code.UNAVAILABLE, "TOO_MANY_STREAMS", True)
        assert error.metadata == {"limit": "0"}
        assert error.retry_after is not None
        assert RETRY_MIN_SECONDS <= error.retry_after <= RETRY_MAX_SECONDS
        waits.add(error.retry_after)
    assert len(waits) == 100, "who was refused together comes back together"
    assert (entered, set(verdicts)) == ([], {Verdict.REFUSED})
    await gate.around("asked", call(GET, Kind.UNARY), proceed)
    assert entered == ["asked"]
    assert len(verdicts) == 100, "only calls that count are decided on"


class House:
    """An admission, and calls that stay until they are told how to end."""

    def __init__(self, streams_max: int) -> None:
        self.verdicts: list[Verdict] = []
        self.gate = admission(streams_max, self.verdicts)
        self.inside: list[tuple[asyncio.Task[Any], asyncio.Future[Any]]] = []

    async def come(self, method: str, kind: Kind) -> bool:
        """Lets a call come; returns whether it was admitted."""
        ending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def proceed(request: Any, call: Call) -> Any:
            return await ending

        task = asyncio.ensure_future(self.gate.around(None, call(method, kind), proceed))
        await asyncio.sleep(0)
        if task.done():
            assert isinstance(task.exception(), TokenwireError)
            return False
        self.inside.append((task, ending))
        return True

    async def leave(self, number: int, how: str) -> None:
        """Ends one of the calls that are inside."""
        task, ending = self.inside.pop(number % len(self.inside))
        match how:
            case "answers":
                ending.set_result(None)
            case "raises":
                ending.set_exception(ValueError())
            case "refuses":
                ending.set_exception(TokenwireError(Code.NOT_FOUND, "RUN_NOT_FOUND", ""))
            case "is cancelled":
                task.cancel()
            case "is cancelled inside":
                ending.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()


HOW = ["answers", "raises", "refuses", "is cancelled", "is cancelled inside"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([*([(STREAM, Kind.SERVER_STREAM)] * 2), (ATTACH, Kind.SERVER_STREAM), (GET, Kind.UNARY), None]),
        st.integers(0, 30),
        st.sampled_from(HOW),
    ),
    max_size=60,
)


@given(st.integers(0, 12), STEPS)
def test_whatever_becomes_of_calls_there_are_never_too_many_and_every_place_comes_back(
    streams_max: int, steps: list[tuple[tuple[str, Kind] | None, int, str]]
) -> None:
    async def play() -> None:
        house = House(streams_max)
        counted: list[bool] = []
        for coming, number, how in steps:
            if coming is not None:
                method, kind = coming
                bound = with_reserve(streams_max) if method == ATTACH else streams_max
                free = method == GET or sum(counted) < bound
                assert await house.come(method, kind) == free
                counted += [method != GET] * free
            elif counted:
                counted.pop(number % len(counted))
                await house.leave(number, how)
            assert house.gate.open == sum(counted) <= with_reserve(streams_max)
        while house.inside:
            await house.leave(0, HOW[len(house.inside) % len(HOW)])
        assert house.gate.open == 0

    asyncio.run(play())


@pytest.mark.asyncio
async def test_only_a_place_above_the_bound_is_one_of_the_reserve() -> None:
    house = House(2)
    for method in (ATTACH, STREAM, ATTACH, ATTACH, STREAM):
        await house.come(method, Kind.SERVER_STREAM)
    assert house.verdicts == [Verdict.ADMITTED, Verdict.ADMITTED, Verdict.RESERVED, Verdict.REFUSED, Verdict.REFUSED]
    while house.inside:
        await house.leave(0, "answers")


@pytest.mark.asyncio
async def test_a_counter_that_fails_takes_no_place() -> None:
    def broken(verdict: Verdict) -> None:
        raise RuntimeError(verdict)

    async def proceed(request: Any, call: Call) -> None:
        raise AssertionError

    gate = Admission(1, rng=random.Random(0), tell=broken)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="admitted"):
            await gate.around(None, call(STREAM), proceed)
    assert gate.open == 0
