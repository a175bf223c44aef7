"""`tokenwire batch`."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.batching import Gates, the_batch
from harness.command_line import begun, interrupt, on_terminal, outcome, tokenwire
from harness.fault_proxy import fault_proxy
from harness.service import service
from harness.waiting import until
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import ScriptedEngine, Step, words

NAMES = [str(number) for number in range(10)]


def echo(job: Job) -> list[Step]:
    return words(job.submission.prompt or "chat")


def written(path: Path, *lines: dict[str, Any]) -> str:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return str(path)


def named(path: Path) -> str:
    return written(path, *({"id": name, "prompt": name} for name in NAMES))


def texts(out: str) -> dict[str, str]:
    lines = [json.loads(line) for line in out.splitlines()]
    assert len({line["id"] for line in lines}) == len(lines), "an id comes twice"
    return {line["id"]: line["text"] if "text" in line else line["error"]["reason"] for line in lines}


@pytest.mark.asyncio
async def test_every_line_is_answered_and_a_failed_one_gives_its_own_exit_code(tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", {"id": "a", "prompt": "one"}, {"messages": [{"content": "hi"}]})
    bad = written(
        tmp_path / "bad.jsonl", {"prompt": "one"}, {"prompt": ""}, {"nothing": 1}, {"prompt": "x", "model": "y"}
    )
    async with service(ScriptedEngine(script=echo)) as running:
        well = await tokenwire("batch", good, "--target", running.address)
        failed = await tokenwire("batch", bad, "--target", running.address)
        quiet = await tokenwire("batch", bad, "-q", "--target", running.address)
    assert (well.code, texts(well.out)) == (0, {"a": "one", "2": "chat"})
    assert well.err == "tokenwire: 2 items are done, 0 failed\n"
    line = json.loads(well.out.splitlines()[0])
    assert list(line) == ["id", "run_id", "text", "finish_reason", "usage"]
    reasons = {"1": "one", "2": "INVALID_REQUEST", "3": "INVALID_LINE", "4": "MODEL_NOT_FOUND"}
    assert (failed.code, texts(failed.out)) == (3, reasons)
    assert failed.err == "tokenwire: 4 items are done, 3 failed\n"
    assert (quiet.code, quiet.err) == (3, "")


@pytest.mark.asyncio
async def test_the_model_and_the_number_in_flight_are_those_of_the_options(tmp_path: Path) -> None:
    file = written(tmp_path / "in.jsonl", {"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y", "model": "scripted"})
    async with service(ScriptedEngine(script=echo)) as running:
        done = await tokenwire("batch", file, "-m", "nothing", "--in-flight", "1", "--target", running.address)
        assert the_batch(running).max_in_flight == 1
    assert texts(done.out) == {"a": "MODEL_NOT_FOUND", "b": "y"}


@pytest.mark.asyncio
async def test_json_gives_the_servers_events_and_the_file_the_results(tmp_path: Path) -> None:
    file = written(tmp_path / "in.jsonl", {"id": "a", "prompt": "one"}, {"id": "b", "oops": 1})
    out = tmp_path / "out.jsonl"
    async with service(ScriptedEngine(script=echo)) as running:
        done = await tokenwire("batch", file, "--json", "-o", str(out), "--target", running.address)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (3, "")
    assert events[-1]["end"]["succeeded"] == 1
    ended = {event["item_done"]["item_id"] for event in events if "item_done" in event}
    assert ended == {"a", "b"}
    assert texts(out.read_text()) == {"a": "one", "b": "INVALID_LINE"}


@pytest.mark.asyncio
async def test_standard_input_is_answered_while_it_comes() -> None:
    async with (
        service(ScriptedEngine(script=echo)) as running,
        begun("batch", "-", "--target", running.address, piped=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        for name in NAMES:
            process.stdin.write(json.dumps({"id": name, "prompt": name}).encode() + b"\n")
            assert json.loads(await process.stdout.readline())["id"] == name
        process.stdin.close()
        done = await outcome(process)
    assert (done.code, done.err) == (0, "tokenwire: 10 items are done, 0 failed\n")


@pytest.mark.asyncio
async def test_what_the_file_has_is_not_asked_again(tmp_path: Path) -> None:
    file, out = named(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    out.write_text('{"id": "0", "text": "0"}\n{"id": "1", "error": {"reason": "LOST"}}\n{"id": "2", "te')
    gates = Gates(*NAMES)
    async with service(gates.engine) as running:
        first = await tokenwire("batch", file, "-o", str(out), "--target", running.address)
        assert sorted(gates.prompts) == NAMES[2:]
        again = await tokenwire("batch", file, "-o", str(out), "--target", running.address)
        assert sorted(gates.prompts) == NAMES[2:]
        retried = await tokenwire("batch", file, "-o", str(out), "--retry-failed", "--target", running.address)
    assert (first.code, again.code, retried.code) == (3, 3, 0)
    assert "10 items are done (2 of them before), 1 failed" in first.err
    assert gates.prompts[8:] == ["1"]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["id"] for line in lines if "error" not in line) == NAMES


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.jsonl"], "cannot read nothing.jsonl: No such file or directory"),
        (["in.jsonl", "-o", "in.jsonl"], "are the same"),
        (["in.jsonl", "-o", "no/folder"], "cannot write no/folder: No such file or directory"),
        (["in.jsonl", "-o", "odd.jsonl"], "line 1 of odd.jsonl is no result of a batch"),
    ],
)
async def test_files_that_cannot_be_are_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    named(tmp_path / "in.jsonl")
    (tmp_path / "odd.jsonl").write_text("hello\n")
    done = await tokenwire("batch", *arguments, "--target", "127.0.0.1:1")
    assert done.code == 1
    assert said in done.err


@pytest.mark.asyncio
async def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    done = await tokenwire("batch", named(tmp_path / "in.jsonl"), "--json", "--target", "127.0.0.1:1")
    assert (done.code, json.loads(done.out)["error"]["code"]) == (2, "UNAVAILABLE")


@pytest.mark.asyncio
async def test_a_line_that_breaks_is_taken_up_again_and_nothing_runs_twice(tmp_path: Path) -> None:
    gates, out = Gates(*NAMES[:4]), tmp_path / "out.jsonl"
    async with (
        service(gates.engine) as running,
        fault_proxy(running.port) as proxy,
        begun(
            "batch", named(tmp_path / "in.jsonl"), "-o", str(out), "--in-flight", "3", "--target",
            f"127.0.0.1:{proxy.port}",
        ) as process,
    ):  # fmt: skip
        for number in range(4, 8):
            await until(lambda number=number: NAMES[number] in gates.prompts, "the next one runs")  # type: ignore[misc]
            await proxy.cut()
            gates.open(NAMES[number])
        gates.open(*NAMES)
        done = await outcome(process)
    assert (done.code, texts(out.read_text())) == (0, {name: name for name in NAMES})
    assert "the connection to the server broke; trying again" in done.err
    assert sorted(gates.prompts) == NAMES


@pytest.mark.asyncio
async def test_a_server_that_begins_anew_gets_what_is_not_done(tmp_path: Path) -> None:
    one, two, out = Gates("0", "1"), Gates(*NAMES), tmp_path / "out.jsonl"
    async with service(one.engine) as first, service(two.engine) as second, fault_proxy(first.port) as proxy:
        arguments = ["batch", named(tmp_path / "in.jsonl"), "-o", str(out), "--target", f"127.0.0.1:{proxy.port}"]
        async with begun(*arguments) as process:
            await until(lambda: out.exists() and len(out.read_text().splitlines()) == 2, "two are done")
            proxy.lead(second.port)
            await proxy.cut()
            done = await outcome(process)
        one.open(*NAMES)
    assert (done.code, texts(out.read_text())) == (0, {name: name for name in NAMES})
    assert sorted(two.prompts) == NAMES[2:]


@pytest.mark.asyncio
async def test_a_file_larger_than_a_batch_may_be_goes_into_several(tmp_path: Path) -> None:
    gates = Gates(*NAMES)
    async with service(gates.engine, batch_items_max=4) as running:
        file = named(tmp_path / "in.jsonl")
        done = await tokenwire("batch", file, "--target", running.address)
        piped = await tokenwire("batch", "-", "--target", running.address, given=Path(file).read_text())
    for one in (done, piped):
        assert (one.code, texts(one.out)) == (0, {name: name for name in NAMES}), one.err
    assert sorted(gates.prompts) == sorted(2 * NAMES)


@pytest.mark.asyncio
async def test_ctrl_c_stops_the_engine_and_says_how_to_go_on(tmp_path: Path) -> None:
    gates, file, out = Gates("0", "1"), named(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    async with service(gates.engine) as running:
        async with begun("batch", file, "-o", out, "--target", running.address) as process:
            await until(lambda: gates.engine.running == 8 and len(gates.prompts) == 10, "two are done")
            await until(lambda: len(Path(out).read_text().splitlines()) == 2, "and written")
            await interrupt(process)
            stopped = await outcome(process)
            await until(lambda: gates.engine.running == 0, "the engine is idle long before the grace is over")
        gates.open(*NAMES)
        done = await tokenwire("batch", file, "-o", out, "--target", running.address)
    assert stopped.code == 130
    assert f"2 of 10 items are done, 0 of them failed; to go on: tokenwire batch {file} -o {out}" in stopped.err
    assert (done.code, texts(Path(out).read_text())) == (0, {name: name for name in NAMES})


@pytest.mark.asyncio
async def test_a_terminal_shows_a_bar_and_then_what_was_done(tmp_path: Path) -> None:
    gates, out = Gates("0", "1"), tmp_path / "out.jsonl"
    async with (
        service(gates.engine) as running,
        on_terminal("batch", named(tmp_path / "in.jsonl"), "-o", str(out), "--target", running.address) as terminal,
    ):
        await terminal.shows("2/10")
        gates.open(*NAMES)
        await terminal.shows("10 items are done, 0 failed")
        assert await terminal.ended() == 0


@pytest.mark.asyncio
async def test_a_reader_of_the_results_that_leaves_stops_the_batch(tmp_path: Path) -> None:
    gates = Gates("0", "1", "2")
    async with (
        service(gates.engine) as running,
        begun("batch", named(tmp_path / "in.jsonl"), "-q", "--target", running.address) as process,
    ):
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        gates.open("3", "4")
        await until(lambda: gates.engine.running == 0, "the engine is idle")
        assert await process.wait() == 0


@pytest.mark.asyncio
@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="needs grpcurl")
async def test_grpcurl_talks_to_a_batch() -> None:
    messages = [
        {"open": {}},
        {"item": {"item_id": "a", "generate": {"prompt": "one"}}},
        {"item": {"item_id": "b", "chat": {"messages": [{"content": "hi"}]}}},
    ]
    async with service(ScriptedEngine(script=echo)) as running:
        process = await asyncio.create_subprocess_exec(
            "grpcurl", "-plaintext", "-d", "@", running.address, "tokenwire.v1.BatchService/BatchGenerate",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate("\n".join(json.dumps(one) for one in messages).encode())
    assert process.returncode == 0
    decoder, text, events = json.JSONDecoder(), out.decode().lstrip(), []
    while text:
        event, end = decoder.raw_decode(text)
        events.append(event)
        text = text[end:].lstrip()
    ended = {event["itemDone"]["itemId"]: event["itemDone"] for event in events if "itemDone" in event}
    assert {name: one["result"]["choices"][0]["text"] for name, one in ended.items()} == {"a": "one", "b": "chat"}
    assert events[-1]["end"]["succeeded"] == 2
