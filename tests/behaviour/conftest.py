"""The same behaviours over every engine: scripted and llama.cpp always, vLLM and SGLang where they are.

`make test-engines` runs all of them and prints which engine does what.
"""

import os
from collections import defaultdict
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from behaviour.backend import Backend
from engines.shared_child import SharedChild, shared, using
from harness.service import service
from tokenwire.app import SYSTEM_CLOCK, make_engines
from tokenwire.engines.engine import Engine
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.engines.status import EngineState
from tokenwire.settings import Settings

VARIABLES = {"vllm": "VLLM_BASE_URL", "sglang": "SGLANG_BASE_URL"}
ENGINES = ["scripted", pytest.param("llamacpp", marks=pytest.mark.llamacpp)]
ENGINES += [pytest.param(name, marks=pytest.mark.live) for name in VARIABLES]

_results: dict[str, dict[str, str]] = defaultdict(dict)
_backends: dict[str, Backend] = {}


@pytest.fixture(scope="session")
def shared_child() -> Iterator[SharedChild]:
    # Room for tools in the prompt.
    with shared(slots=3, context=640) as child:
        yield child


@pytest_asyncio.fixture(params=ENGINES)
async def backend(request: pytest.FixtureRequest, shared_child: SharedChild, tmp_path: Path) -> AsyncIterator[Backend]:
    name: str = request.param
    async with AsyncExitStack() as stack:
        engine: Engine
        if name == "scripted":
            engine = ScriptedEngine()
        elif name == "llamacpp":
            engine = await stack.enter_async_context(using(shared_child, tmp_path))
        else:
            url = os.environ.get(VARIABLES[name])
            if not url:
                pytest.skip(f"{VARIABLES[name]} is not set")
            (engine,) = make_engines(Settings.load({}, {VARIABLES[name]: url}, Path("/")), SYSTEM_CLOCK)
        whole = await stack.enter_async_context(service(engine, journal_max_bytes=2**30))
        await engine.check()
        assert engine.status.state is EngineState.READY
        window = engine.status.models[0].context_window
        assert window is not None
        one = _backends[request.node.nodeid] = Backend(name, whole, engine, window)
        yield one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and (one := _backends.pop(item.nodeid, None)):
        behaviour = item.name.partition("[")[0].removeprefix("test_").replace("_", " ")
        parameters = item.name.partition("[")[2].rstrip("]").replace(one.name, "").replace("uvloop", "").strip("-")
        name = f"{behaviour} ({parameters})" if parameters else behaviour
        _results[name][one.name] = one.outcome if report.passed else "-" if report.skipped else "FAILS"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    engines = [name for name in ("scripted", "llamacpp", *VARIABLES) if any(name in row for row in _results.values())]
    if not set(engines) & set(VARIABLES):
        return
    terminalreporter.section("behaviours")
    terminalreporter.line(f"| behaviour | {' | '.join(engines)} |")
    terminalreporter.line("|---|" + "---|" * len(engines))
    for name, row in _results.items():
        terminalreporter.line(f"| {name} | {' | '.join(row.get(engine, '') for engine in engines)} |")
