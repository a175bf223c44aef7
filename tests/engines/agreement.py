"""How far engines agree with each other when one goes on where another was killed: `make agreement` measures it.

Greedy runs are begun on one engine, which is cut off in the middle, and go on at the other. The answer is compared with
the one that the first engine gives when nobody cuts it off. Engines are named by VLLM_BASE_URL and SGLANG_BASE_URL; the
embedded one is always there. All serve the same weights under one alias.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from harness.service import Service, service
from harness.waiting import until
from tokenwire.app import make_engines
from tokenwire.domain.context import Clock
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState
from tokenwire.settings import Settings
from tokenwire.v1.event_pb2 import Continuation
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.output_pb2 import Output
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

MODELS = Path(__file__).parents[2] / ".cache" / "models"
ALIAS = "shared"
TOKENS = 100
CUT_AT = 50
MARGIN = 10
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "The three laws of motion say that",
    "To bake bread you need",
    "In the year 1969",
    "def fibonacci(n):",
    "The best way to learn a language is",
    "Water boils at",
    "My favourite book is about",
    "The train to Zürich leaves",
    "A list of ten animals:",
    "Dear Sir or Madam,",
    "Why is the sky blue? Because",
    "The recipe has four steps:",
    "SELECT name FROM",
    "Das Wetter in Berlin ist",
    "The old man looked at the sea and",
    "Photosynthesis is the process by which",
    "She opened the letter and",
    "Once the rain had stopped,",
)


class Line:
    """A TCP line to an engine that can be cut, so that the engine seems dead, and mended."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._far = host, port
        self._dead = False
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Breaks all connections, and every new one at once."""
        self._dead = True
        for task in self._tasks:
            task.cancel()

    def mend(self) -> None:
        """Lets new connections through."""
        self._dead = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Yields the address of its near end while the block runs."""
        self.mend()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.cut()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._dead:
                return
            far_reader, far_writer = await asyncio.open_connection(*self._far)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(reader, far_writer))
                    group.create_task(_copy(far_reader, writer))
            finally:
                far_writer.close()
        finally:
            with suppress(RuntimeError):
                writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@dataclass
class Answer:
    """A run as its reader saw it: ids, when each came, and how each attempt went on."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    attempts: list[tuple[str, str]] = field(default_factory=list)
    pause: float = 0.0
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What was measured of one pair of engines; times in seconds.

    Attributes:
        identical: answers that are those of the first engine when nobody cuts it off.
        mean_divergence: the token at which the others part from it, on average.
        alike: prompts to which both engines, left alone, give the same answer.
    """

    first: str
    then: str
    runs: int
    whole: int
    by_tokens: int
    identical: int
    mean_divergence: float | None
    alike: int
    pause_p50: float
    pause_p99: float


async def measure(first: str, then: str, prompts: int) -> Pair:
    """Begins runs on one engine and lets another go on with them."""
    line_from, line_to = (_line(name) for name in (first, then))
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(one.open()) if one else "" for one in (line_from, line_to)]
        engines = _engines((first, then), urls)
        if then == "llamacpp":
            # Alone at first, so that its child is known: it is the other one's that is killed.
            await engines[1].start()
            await _reaches(engines[1], EngineState.READY)
        spared = _children()
        running = await stack.enter_async_context(service(*engines, failover_seconds=60.0))
        for engine in engines:
            await _reaches(engine, EngineState.READY)
        asked = PROMPTS[:prompts]
        answers = {prompt: await _run(running, prompt) for prompt in asked}
        # The model may end an answer before it can be cut off.
        asked = tuple(prompt for prompt in asked if len(answers[prompt].ids) > CUT_AT + MARGIN)
        unbroken = [answers[prompt] for prompt in asked]
        broken = []
        for prompt in asked:
            broken.append(await _run(running, prompt, line_from or await _child(spared)))
            if line_from is not None:
                line_from.mend()
            await _reaches(engines[0], EngineState.READY)
            print(f"{first} -> {then}: {len(broken)}/{len(asked)}", file=sys.stderr, flush=True)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(line_to.open()) if line_to else ""
        engines = _engines((then,), (url,))
        running = await stack.enter_async_context(service(*engines))
        await _reaches(engines[0], EngineState.READY)
        alone = [await _run(running, prompt) for prompt in asked]
    return _pair(first, then, unbroken, broken, alone)


def _pair(first: str, then: str, unbroken: list[Answer], broken: list[Answer], alone: list[Answer]) -> Pair:
    # An engine may have come to the end before it was cut off.
    cut = [place for place, one in enumerate(broken) if len(one.attempts) > 1]
    unbroken, broken, alone = ([answers[place] for place in cut] for answers in (unbroken, broken, alone))
    places = [_divergence(one.ids, other.ids) for one, other in zip(unbroken, broken, strict=True)]
    apart = [place for place in places if place is not None]
    pauses = sorted(one.pause for one in broken)
    return Pair(
        first=first,
        then=then,
        runs=len(broken),
        whole=sum(one.whole for one in broken),
        by_tokens=sum(any(how == "BY_TOKENS" for _, how in one.attempts) for one in broken),
        identical=places.count(None),
        mean_divergence=round(statistics.mean(apart), 1) if apart else None,
        alike=sum(one.ids == other.ids for one, other in zip(unbroken, alone, strict=True)),
        pause_p50=round(pauses[len(pauses) // 2], 3),
        pause_p99=round(pauses[min(len(pauses) - 1, int(len(pauses) * 0.99))], 3),
    )


def _divergence(one: list[int], other: list[int]) -> int | None:
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))


async def _run(running: Service, prompt: str, victim: Line | int | None = None) -> Answer:
    answer = Answer()
    request = GenerateRequest(
        prompt=prompt,
        model=ALIAS,
        sampling=Sampling(temperature=0, repetition_penalty=1.0),
        stopping=Stopping(max_tokens=TOKENS),
        output=Output(token_ids=True),
        run=RunOptions(labels={"prompt": "agreement"}),
    )
    last = 0.0
    with suppress(grpc.aio.AioRpcError):
        async for event in running.generate.StreamGenerate(request):
            now = time.monotonic()
            if event.HasField("dispatched"):
                how = Continuation.Name(event.dispatched.continuation).removeprefix("CONTINUATION_")
                answer.attempts.append((event.dispatched.engine, how))
            elif event.HasField("delta"):
                answer.ids += event.delta.token_ids
                answer.text += event.delta.text
                if len(answer.attempts) > 1 and not answer.pause:
                    answer.pause = now - last
                last = now
                if victim is not None and len(answer.ids) >= CUT_AT:
                    _kill(victim)
                    victim = None
            answer.whole = event.HasField("end") and not event.end.HasField("error")
    return answer


def _kill(victim: Line | int) -> None:
    if isinstance(victim, Line):
        victim.cut()
    else:
        os.kill(victim, signal.SIGKILL)


async def _child(spared: set[int]) -> int:
    """Waits for the child of the engine that is killed; it pauses longer before each restart."""
    await until(lambda: bool(_children() - spared), "the child is there again", seconds=60)
    return (_children() - spared).pop()


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    children = {int(one) for path in tasks for one in path.read_text().split()}
    return {one for one in children if b"llamacpp/child.py" in Path(f"/proc/{one}/cmdline").read_bytes()}


def _line(name: str) -> Line | None:
    if name == "llamacpp":
        return None
    address = urlsplit(os.environ[f"{name.upper()}_BASE_URL"])
    assert address.hostname, "an address has a host"
    return Line(address.hostname, address.port or 80)


def _engines(kinds: Sequence[str], urls: Sequence[str]) -> list[Engine]:
    tables = [
        {"name": f"{kind}-{place}", "kind": kind, "alias": ALIAS} | ({"url": url} if url else {})
        for place, (kind, url) in enumerate(zip(kinds, urls, strict=True))
    ]
    settings = Settings.model_validate({"engines": tuple(tables), "cache_dir": MODELS})
    return make_engines(settings, Clock(monotonic=time.monotonic, wall=time.time))


async def _reaches(engine: Engine, state: EngineState) -> None:
    async with asyncio.timeout(100):
        while engine.status.state is not state:
            await engine.status.changed()


def table(pairs: list[Pair]) -> str:
    """Returns the result as a Markdown table."""
    lines = [
        "| begun on | continued on | runs | whole | by tokens | identical to unbroken | mean token of divergence "
        "| both alone identical | pause p50 | pause p99 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in pairs:
        share = f"{100 * one.identical / one.runs:.0f} %"
        place = "-" if one.mean_divergence is None else str(one.mean_divergence)
        lines.append(
            f"| {one.first} | {one.then} | {one.runs} | {one.whole} | {one.by_tokens} | {share} | {place} "
            f"| {100 * one.alike / one.runs:.0f} % | {one.pause_p50 * 1000:.0f} ms | {one.pause_p99 * 1000:.0f} ms |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures every pair of the engines that there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pair", nargs=2, metavar=("FIRST", "THEN"), help="only this one")
    asked = parser.parse_args()
    there = [name for name in ("vllm", "sglang") if f"{name.upper()}_BASE_URL" in os.environ] + ["llamacpp"]
    names = [tuple(asked.pair)] if asked.pair else [(one, other) for one in there for other in there]
    pairs = [asyncio.run(measure(first, then, asked.prompts)) for first, then in names]
    print(json.dumps([asdict(one) for one in pairs], indent=1) if asked.json else table(pairs))


if __name__ == "__main__":
    main()
