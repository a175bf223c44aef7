"""How many streams one process holds, and what goes wrong beyond: `python -m bench.many_streams [EXPERIMENT ...]`.

docs/decisions/0016 has what it found. Each experiment starts its gateways afresh and prints a table.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import msgspec

from bench.child import Child
from bench.engine import engine, takes_connections
from bench.ports import Ports
from bench.programs import Programs, ensure
from bench.systems.requests import GENERATE_PATH, generate
from bench.table import table
from bench.tally import Tally

ROOT = Path(__file__).parents[2]
SOFT, HARD = "grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit"
# grpc's defaults for these.
SOFT_DEFAULT, HARD_DEFAULT = 1000, 3000
UNREQUESTED = "grpc.server_max_unrequested_time_in_server"
NO_LIMIT = {SOFT: 100_000, HARD: 100_000}
CANCELLED = "1"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the experiments that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_streams", description=__doc__)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"default: {' '.join(EXPERIMENTS)}")
    chosen = parser.parse_args(arguments).experiments or list(EXPERIMENTS)
    if unknown := [name for name in chosen if name not in EXPERIMENTS]:
        parser.error(f"no such experiment: {' '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="many-streams-") as folder:
        bed = Bed(programs=ensure(), ports=Ports(Random()), folder=Path(folder))
        for name in chosen:
            print(f"\n## {name}\n\n{EXPERIMENTS[name].__doc__}\n", flush=True)
            EXPERIMENTS[name](bed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """What all experiments need."""

    programs: Programs
    ports: Ports
    folder: Path

    @contextmanager
    def bare(self, rate: int = 50, **options: int) -> Iterator["Served"]:
        """Runs the bare gateway with these server options, in front of an engine of this rate."""
        with self._served(rate, lambda port, engine: ("bench.gateways.bare", str(port), str(engine)), options) as one:
            yield one

    @contextmanager
    def tokenwire(self, streams_max: int, rate: int = 50, **options: int) -> Iterator["Served"]:
        """Runs tokenwire with this bound; 0: with none but that of its file descriptors."""

        def command(port: int, engine: int) -> tuple[str, ...]:
            flags = ("--engine", f"e:openai=http://127.0.0.1:{engine}", "--log-level", "error")
            # Each run reserves a share of the journal for all tokens that it asks for.
            room = ("--journal-max-bytes", str(2**32), "--streams-max", str(streams_max))
            return ("tokenwire", "serve", "--listen", f"127.0.0.1:{port}", *room, *flags)

        with self._served(rate, command, options) as one:
            yield one

    @contextmanager
    def _served(
        self, rate: int, command: Callable[[int, int], tuple[str, ...]], options: dict[str, int]
    ) -> Iterator["Served"]:
        port = self.ports.take()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder)))
            source = stack.enter_context(engine(self.programs.engine, [rate], self.ports, folder))
            what = command(port, source.ports[rate])
            launcher = [sys.executable, "-m", "bench.gateways.with_options", json.dumps(options), *what]
            path = ":".join(str(ROOT / one) for one in ("service", "clients/python", "tests"))
            child = stack.enter_context(
                Child("gateway", launcher, folder=folder, environment={"PYTHONPATH": path, "GRPC_VERBOSITY": "NONE"})
            )
            deadline = time.monotonic() + 30
            while not takes_connections(port):
                if child.ended() or time.monotonic() > deadline:
                    raise RuntimeError(f"the gateway does not start: {child.said()}")
                time.sleep(0.05)
            yield Served(self, port, child, folder)


class Served:
    """A gateway that runs."""

    def __init__(self, bed: Bed, port: int, child: Child, folder: Path) -> None:
        self.port = port
        self.child = child
        self._bed = bed
        self._folder = folder
        self._numbers = iter(range(1000))

    @contextmanager
    def calling(self, streams: int, tokens: int, *flags: str, connections: int = 4) -> Iterator["Calls"]:
        """Makes calls while the block runs, all at once unless the flags say otherwise."""
        name = f"client-{next(self._numbers)}"
        body = self._folder / name
        body.write_bytes(generate(tokens))
        numbers = [str(one) for one in (self.port, streams, connections, tokens)]
        command = [str(self._bed.programs.client), "grpc", *numbers, GENERATE_PATH, str(body), *flags]
        with Child(name, command, folder=self._folder) as child:
            yield Calls(child)

    def calls(self, streams: int, tokens: int, *flags: str, connections: int = 4) -> Tally:
        """Makes calls, and returns what came of them."""
        with self.calling(streams, tokens, *flags, connections=connections) as calls:
            return calls.finish()

    def files(self) -> int:
        """Returns how many file descriptors are open."""
        return max(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.child.tree.pids())


class Calls:
    """A load client that runs."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def hold(self) -> None:
        """Waits until all calls are open and have had a token."""
        while "held" not in self._child.said().split():
            if self._child.ended():
                raise RuntimeError("the calls cannot be held open")
            time.sleep(0.02)

    def finish(self) -> Tally:
        """Waits for the end of all calls."""
        self._child.wait(300)
        return msgspec.json.decode(self._child.output.read_bytes().splitlines()[-1], type=Tally)


def predicted(streams: int, served_meanwhile: float, soft: int = SOFT_DEFAULT, hard: int = HARD_DEFAULT) -> float:
    """Returns how many of so many calls at once are thrown away, if grpc's core is understood.

    Of calls that nobody has taken yet it throws one away with a chance that grows from 0, at the soft limit, to 1, at
    the hard one. So the queue grows by less and less: by a constant share of what is left of the room above the soft
    limit. `served_meanwhile` are the calls that the event loop takes while they all arrive.
    """
    beyond = streams - served_meanwhile - soft
    room = hard - soft
    if beyond <= 0:
        return 0.0
    return beyond - room * (1 - math.exp(-beyond / room)) if room > 0 else beyond


def burst(bed: Bed) -> None:
    """Calls at the bare gateway, all at once, with grpc's own limits: what ends as CANCELLED (status 1)."""
    rows = []
    for streams in (900, 1000, 1300, 2000, 3000, 4000):
        for connections in (1, 4, 50):
            with bed.bare() as served:
                counted = served.calls(streams, 20, connections=connections)
            guess = f"{predicted(streams, 60):.0f}"
            rows.append((str(streams), str(connections), str(counted.done), *_failed(counted), guess))
    print(table(("streams", "connections", "done", "cancelled", "else", "predicted"), rows, left=0))


def limits(bed: Bed) -> None:
    """1300 calls at once, with other limits for calls that nobody has taken yet."""
    rows = []
    for soft, hard in ((0, 1), (1, 1), (100, 100), (100, 300), (500, 1500), (1000, 3000), (100_000, 100_000)):
        with bed.bare(**{SOFT: soft, HARD: hard}) as served:
            counted = served.calls(1300, 20)
        rows.append(
            (str(soft), str(hard), str(counted.done), *_failed(counted), f"{predicted(1300, 60, soft, hard):.0f}")
        )
    for streams in (2000, 3000, 5000):
        with bed.bare(**NO_LIMIT) as served:
            counted = served.calls(streams, 20, connections=10)
        rows.append((f"{streams} calls:", "100000", str(counted.done), *_failed(counted), "0"))
    print(table(("soft", "hard", "done", "cancelled", "else", "predicted"), rows, left=0))


def ruled_out(bed: Bed) -> None:
    """What else it might be, each with 1300 calls at once at the bare gateway."""
    trials: list[tuple[str, dict[str, int], tuple[str, ...]]] = [
        ("as it is", {}, ()),
        ("no keepalive, no pings", {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.http2.max_ping_strikes": 0}, ()),
        ("no bandwidth probes", {"grpc.http2.bdp_probe": 0}, ()),
        ("10000 streams a connection", {"grpc.max_concurrent_streams": 10_000}, ()),
        ("metadata of 6 kB", {}, ("--header", f"x-much: {'m' * 6000}")),
        ("1000 calls a second", {}, ("--ramp", "1000")),
        ("2000 calls a second", {}, ("--ramp", "2000")),
    ]
    rows = []
    for name, options, flags in trials:
        with bed.bare(**options) as served:
            counted = served.calls(1300, 20, *flags)
        rows.append((name, str(counted.done), *_failed(counted)))
    print(table(("", "done", "cancelled", "else"), rows))


def open_streams(bed: Bed) -> None:
    """Streams that are open already, held for 20 s with grpc's own limits, while 2000 calls come at once."""
    with bed.bare(rate=2) as served, served.calling(1500, 10_000, "--ramp", "300", "--hold", "20") as held:
        held.hold()
        counted = served.calls(2000, 5, connections=10)
        kept = held.finish()
    rows = [("open", "1500", str(kept.held), *_failed(kept)), ("at once", "2000", str(counted.done), *_failed(counted))]
    print(table(("", "streams", "held or done", "cancelled", "else"), rows))


def waiting(bed: Bed) -> None:
    """1500 streams of 10 tokens/s, opened 300 a second, at the bare gateway: how long grpc's core lets a call wait for
    the event loop to take it. Where the loop has no time for them, they end as CANCELLED (status 1) after that."""
    rows = []
    for seconds in (3, 30, 3600):
        with bed.bare(10, **NO_LIMIT, **{UNREQUESTED: seconds}) as served:
            counted = served.calls(1500, 100_000, "--ramp", "300", "--hold", "5")
        late = f"{counted.ttft_p99_us / 1e6:.1f}"
        rows.append((str(seconds), str(counted.held), *_failed(counted), late))
    print(table(("longest wait s", "held", "cancelled", "else", "first token p99 s"), rows, left=0))


def capacity(bed: Bed) -> None:
    """tokenwire without a bound of its own: calls come 100 a second and stay open; figures of 15 s once all are.

    A probe is a health check, one after the other: what any new call waits for the event loop.
    """
    rows = []
    for rate, numbers in ((10, (250, 500, 1000, 2000)), (50, (100, 250, 500, 1000))):
        for streams in numbers:
            with bed.tokenwire(0, rate, **NO_LIMIT, **{UNREQUESTED: 3600}) as served:
                rows.append((str(rate), str(streams), *_held(served, streams, 150 * rate)))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    heads = ("tokens/s", "streams", "failed", "added p50 ms", "p99 ms", "first token p99 ms", "probe p50 ms", "p99 ms")
    print(table((*heads, "tokens a message", "cores", "KiB a stream", "files a stream"), rows, left=0))


def _held(served: Served, streams: int, tokens: int) -> list[str]:
    idle, files = served.child.tree.rss_bytes(), served.files()
    with served.calling(streams, tokens, "--ramp", "100", "--hold", "17", connections=20) as calls:
        calls.hold()
        began, used = time.monotonic(), served.child.tree.cpu_seconds()
        probes = asyncio.run(_probes(served.port, 15))
        share = (served.child.tree.cpu_seconds() - used) / (time.monotonic() - began)
        each = (served.child.tree.rss_bytes() - idle) / streams / 1024
        more_files = (served.files() - files) / streams
        counted = calls.finish()
    latencies = (counted.added_p50_us, counted.added_p99_us, counted.ttft_p99_us)
    figures = [str(counted.failed), *(f"{one / 1000:.1f}" for one in latencies)]
    figures += [f"{1000 * probes[int(part * (len(probes) - 1))]:.1f}" for part in (0.5, 0.99)]
    merged = counted.tokens / max(counted.messages, 1)
    return [*figures, f"{merged:.1f}", f"{share:.2f}", f"{each:.0f}", f"{more_files:.2f}"]


async def _probes(port: int, seconds: float) -> list[float]:
    waits, end = [], time.monotonic() + seconds
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        while time.monotonic() < end:
            began = time.monotonic()
            await check(b"")
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.02)
    return sorted(waits)


def refused(bed: Bed) -> None:
    """tokenwire with a bound of 1000: what comes beyond, all at once, and one by one while it is full."""
    rows = []
    for streams in (1000, 1300, 3000, 5000):
        with bed.tokenwire(1000, 5) as served:
            counted = served.calls(streams, 150, connections=10)
        rows.append((str(streams), str(counted.done), json.dumps(counted.calls_failed), f"{counted.wall_seconds:.1f}"))
    print(table(("streams", "done", "failed, by status", "seconds"), rows, left=0))
    with bed.tokenwire(1000, 5) as served, served.calling(1000, 1000, "--ramp", "100", "--hold", "20") as held:
        held.hold()
        waits = sorted(asyncio.run(_refusals(served.port, 300)))
        kept = held.finish()
    figures = ", ".join(f"p{part:.0%} {waits[int(part * (len(waits) - 1))] * 1000:.1f} ms" for part in (0.5, 0.99))
    print(
        f"\n{len(waits)} one by one, while 1000 streams tell 5 tokens/s each: {figures.replace('%', '')}; "
        f"{kept.failed} of the 1000 failed."
    )


async def _refusals(port: int, number: int) -> list[float]:
    waits = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/tokenwire.v1.GenerateService/Generate")
        for _ in range(number):
            began = time.perf_counter()
            one = call(generate(1))
            if await one.code() is not grpc.StatusCode.UNAVAILABLE:
                # Those who filled it have left.
                break
            waits.append(time.perf_counter() - began)
    return waits


def _failed(counted: Tally) -> tuple[str, str]:
    cancelled = counted.calls_failed.get(CANCELLED, 0)
    return str(cancelled), str(counted.failed - cancelled)


EXPERIMENTS: dict[str, Callable[[Bed], None]] = {
    "burst": burst,
    "limits": limits,
    "ruled-out": ruled_out,
    "open-streams": open_streams,
    "waiting": waiting,
    "capacity": capacity,
    "refused": refused,
}

if __name__ == "__main__":
    main()
