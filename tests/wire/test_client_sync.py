"""The Python client for threads against a real server, which runs in the event loop of the test."""

import asyncio
import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from harness.fault_proxy import fault_proxy
from harness.service import service
from harness.waiting import until
from tokenwire.domain.events import FinishReason
from tokenwire.engines.scripted import Pause, ScriptedEngine, WaitFor, words
from tokenwire.engines.status import EngineState
from tokenwire.engines.support import Cell, Support
from tokenwire.v1.event_pb2 import PHASE_LOADING, Progress
from tokenwire_client import BrokenError, Client, Code, Failure, OverdueError, Policy, RefusedError, Result
from tokenwire_client.sync.watchdog import Watchdog
from wire.test_client_faults import HALF, REST, START, Script, end, scripted

T = TypeVar("T")
TEXT = "Once upon a time, «ça va?» — 水が流れる. 👩‍👩‍👧"
QUICK = Policy(first_wait=0.001, longest_wait=0.02)


async def used(address: str, use: Callable[[Client], T], policy: Policy = QUICK) -> T:
    """Uses a client in a thread of its own."""

    def work() -> T:
        with Client(address, policy=policy) as client:
            return use(client)

    return await asyncio.to_thread(work)


@pytest.mark.asyncio
async def test_an_answer_comes_whole_or_in_pieces_or_as_events_to_many_threads() -> None:
    def use(client: Client) -> list[Result]:
        with client.stream("hi") as stream:
            assert "".join(stream.pieces()) == TEXT == stream.text
        with client.stream_chat("hi") as chat:
            kinds = [event.WhichOneof("event") for event in chat]
        assert (kinds[0], kinds[-1]) == ("start", "end")
        results: list[Result] = []
        threads = [threading.Thread(target=lambda: results.append(client.generate("hi"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.wait(chat.run_id).text == client.chat("hi").text == TEXT
        assert client.get(chat.run_id).request_id == chat.request_id
        assert len(client.runs()) == 11
        assert [model.name for model in client.models()] == ["scripted"]
        assert client.cancel(chat.run_id).run_id == chat.run_id
        return results

    async with service(ScriptedEngine(script=lambda job: words(TEXT))) as running:
        results = await used(running.address, use)
    assert [result.text for result in results] == [TEXT] * 8


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["break", "exception", "interrupt"])
async def test_leaving_early_cancels_the_run_before_the_call_is_dropped(way: str) -> None:
    engine = ScriptedEngine(script=lambda job: [*words("never ending")[:-1], Pause(None)])
    reading = threading.Event()
    threads: list[int] = []

    def use(client: Client) -> None:
        threads.append(threading.get_ident())
        # Without grace a dropped call alone would end the run as an orphan.
        with client.stream("hi", orphan_grace=0) as stream:
            for piece in stream.pieces():
                if "ending" in piece:
                    if way == "break":
                        break
                    if way == "exception":
                        raise KeyError
                    reading.set()

    async with service(engine) as running:
        task = asyncio.create_task(used(running.address, use))
        if way == "interrupt":
            await until(reading.is_set, "it waits for more")
            # What Ctrl-C does to the main thread.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[0]), ctypes.py_object(InterruptedError))
        await asyncio.wait([task])
        [run] = running.app.runs.list("local")
        assert run.end is not None
        assert (run.error, run.end.choices[0].finish_reason) == (None, FinishReason.CANCELLED)
        expected: type[BaseException] = {"exception": KeyError, "interrupt": InterruptedError}.get(way, type(None))  # type: ignore[arg-type]
        assert isinstance(task.exception(), expected)
    assert engine.stopped == 1


INTERRUPTED = """
import sys
from tokenwire_client import Client
with Client(sys.argv[1]) as client, client.stream("hi", orphan_grace=0) as stream:
    for piece in stream.pieces():
        print(piece, end="", flush=True)
"""


@pytest.mark.asyncio
async def test_ctrl_c_interrupts_a_wait_and_cancels_the_run() -> None:
    engine = ScriptedEngine(script=lambda job: [*words("never ending")[:-1], Pause(None)])
    async with service(engine) as running:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", INTERRUPTED, running.address, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readuntil(b"ending")
        process.send_signal(signal.SIGINT)
        _, told = await process.communicate()
        [run] = running.app.runs.list("local")
        assert run.end is not None
        assert (run.error, run.end.choices[0].finish_reason) == (None, FinishReason.CANCELLED)
    assert told.endswith(b"KeyboardInterrupt\n")


@pytest.mark.asyncio
async def test_a_line_that_breaks_again_and_again_is_taken_up_without_gap_or_duplicate() -> None:
    turns = [asyncio.Event() for _ in words(TEXT)]
    steps = [step for turn, word in zip(turns, words(TEXT), strict=True) for step in (WaitFor(turn), word)]
    engine = ScriptedEngine(script=lambda job: steps)
    pieces: list[str] = []
    attempts: list[int] = []

    def use(client: Client) -> str:
        with client.stream("hi", on_reconnect=lambda attempt, *_: attempts.append(attempt)) as stream:
            for piece in stream.pieces():
                pieces.append(piece)  # noqa: PERF402 - the test looks at it meanwhile
            return stream.text

    async with service(engine) as running, fault_proxy(running.port) as proxy:
        task = asyncio.create_task(used(f"127.0.0.1:{proxy.port}", use))
        for number, turn in enumerate(turns[:-1]):
            turn.set()
            await until(lambda number=number: len(pieces) > number, "the piece was read")  # type: ignore[misc]
            await proxy.cut()
        turns[-1].set()
        assert await task == "".join(pieces) == TEXT
    assert len(attempts) >= len(turns) - 1
    assert engine.started == 1


@pytest.mark.asyncio
async def test_a_line_that_falls_silent_is_taken_for_broken() -> None:
    async def script(context: Any, call: int) -> Any:
        if call == 0:
            yield START
            yield HALF
            await asyncio.Event().wait()
        yield REST
        yield end("half rest")

    failures: list[Failure] = []

    def use(client: Client) -> str:
        return client.generate("hi", on_reconnect=lambda attempt, failure, wait: failures.append(failure)).text

    silent: Script = script
    async with scripted(silent) as (address, _):
        assert await used(address, use, Policy(first_wait=0.001, silence=0.2)) == "half rest"
    assert [one.message for one in failures] == ["nothing came for 0.2 s"]


@pytest.mark.asyncio
async def test_an_end_whose_status_does_not_come_is_an_end() -> None:
    async def script(context: Any, call: int) -> Any:
        yield START
        yield HALF
        yield end("half")
        await asyncio.Event().wait()

    silent: Script = script
    async with scripted(silent) as (address, requests):
        assert await used(address, lambda client: client.generate("hi").text) == "half"
    assert len(requests) == 1


@pytest.mark.asyncio
async def test_errors_are_those_of_the_other_front() -> None:
    def use(client: Client) -> None:
        with pytest.raises(RefusedError) as caught:
            client.generate("hi", temperature=9.0)
        assert caught.value.violations[0].field == "sampling.temperature"
        with pytest.raises(OverdueError) as overdue:
            client.generate("hi", timeout=0.2)
        assert overdue.value.text == "never"
        with pytest.raises(RefusedError):
            client.get("run_nothing")

    engine = ScriptedEngine(script=lambda job: [words("never ending")[0], Pause(None)])
    async with service(engine) as running:
        await used(running.address, use)
        [run] = running.app.runs.list("local")
        assert run.end is not None
    with Client("127.0.0.1:1", policy=Policy(attempts=1, first_wait=0.001)) as client:
        with pytest.raises(BrokenError) as caught:
            client.models()
        assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.asyncio
async def test_progress_is_told_while_the_model_is_loaded() -> None:
    engine = ScriptedEngine(script=lambda job: words("hello"))
    engine.status.set(EngineState.LOADING)
    told: list[Progress] = []
    async with service(engine) as running:
        task = asyncio.create_task(used(running.address, lambda client: client.generate("hi", on_progress=told.append)))
        await until(lambda: bool(told), "it hears of the loading")
        engine.status.set(EngineState.READY)
        assert (await task).text == "hello"
    assert told[0].phase == PHASE_LOADING


@pytest.mark.asyncio
async def test_what_an_engine_cannot_stream_is_answered_all_the_same() -> None:
    engine = ScriptedEngine(script=lambda job: words("hello"))
    engine.fields = {**engine.fields, "sampling.top_k": Cell(Support.NATIVE, unary_only=True)}

    def use(client: Client) -> str:
        with pytest.raises(RefusedError):
            client.generate("hi", top_p=0.5)
        return client.generate("hi", top_k=3).text + client.chat("hi", top_k=3).text

    async with service(engine) as running:
        assert await used(running.address, use) == "hellohello"


def test_a_watchdog_drops_what_is_silent_and_nothing_else() -> None:
    class Call:
        def __init__(self) -> None:
            self.dropped = threading.Event()

        def cancel(self) -> None:
            self.dropped.set()

    watchdog = Watchdog(time.monotonic)
    silent, idle, lively = Call(), Call(), Call()
    watched = watchdog.watch(silent, 0.05)
    watchdog.watch(idle, 0.05)
    watchdog.watch(lively, 60.0).waiting()
    watched.waiting()
    assert silent.dropped.wait(10)
    assert watched.silent
    assert not idle.dropped.is_set()
    assert not lively.dropped.is_set()
    watchdog.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tokenwire watchdog"]


def test_a_stream_is_read_once_and_inside_its_block() -> None:
    with Client("127.0.0.1:1", rng=random.Random(0)) as client:
        stream = client.attach("run_1")
        with pytest.raises(RuntimeError, match="inside"):
            next(stream)
        with stream, pytest.raises(RuntimeError, match="once"):
            stream.__enter__()
