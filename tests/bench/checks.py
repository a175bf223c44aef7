"""The same load by programs of others: ghz and h2load, whose counts are compared with those of our client.

`python -m bench.checks` does it alone. Only gateways that speak tokenwire's contract are checked.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from bench.gateway import running
from bench.programs import FOLDER, ProgramsError, ensure, go
from bench.site import Site, open_site
from bench.system import System, Wire
from bench.tally import Tally
from bench.void import VoidError
from tokenwire.v1 import chat_service_pb2, generate_service_pb2

GHZ_VERSION = "v0.93.0"
STREAMS, TOKENS, RATE = 100, 50, 50
# ghz tells what it receives in its log alone, where it leaves out most of more than a hundred lines a second. So tokens
# are counted one stream after the other.
FEW_STREAMS = 3
_CONNECTIONS = 4
_SECONDS_MAX = 120
_INSTALL_SECONDS = 600
_TOKEN = re.compile(r"[0-9]{16}")
_DELTA_TEXT = re.compile(r'\bdelta:<(?:choice:\d+ )?text:"([^"\\]*)"')


class AbsentError(Exception):
    """A program is not here, and cannot be got; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a program has counted.

    Attributes:
        what: calls that ended well, or tokens.
        streams: how many calls it made.
        counted: how many there were.
        more: figures of its own, for the table alone.
    """

    what: str
    streams: int
    counted: int
    more: Mapping[str, int]


_Load = Callable[[str, Site, System, int], Sequence[Count]]


def check(site: Site, systems: Sequence[System], folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Returns what each program has counted at each system, beside what our client has.

    A row has `tool`, `system`, `counts` (calls or tokens), `expected` (our client's figure), `counted`, `agree`, and
    what the program tells besides; that of a program or system that is absent says why in `counted`.

    Args:
        site: its engine must have the rate RATE.
        systems: those that do not speak gRPC are left out.
        folder: where ghz is, or is built.
    """
    tools: list[tuple[str, str, _Load]] = []
    rows: list[dict[str, Any]] = []
    known: tuple[tuple[str, Callable[[Path], str], _Load], ...] = (
        ("ghz", _ghz, _by_ghz),
        ("h2load", _h2load, _by_h2load),
    )
    for name, find, load in known:
        try:
            tools.append((name, find(folder), load))
        except AbsentError as error:
            rows.append(_absent(name, "-", str(error)))
    for system in systems:
        if system.wire is not Wire.GRPC:
            continue
        try:
            with running(site, system, RATE) as gateway:
                port = gateway.doors[0]
                ours = {one: _by_our_client(site, system, port, one) for one in (STREAMS, FEW_STREAMS)}
                for name, program, load in tools:
                    rows += _rows(name, system.name, ours, partial(load, program, site, system, port))
        except VoidError as error:
            rows.append(_absent("-", system.name, str(error)))
    return rows


def compared(ours: Tally, theirs: Count) -> dict[str, Any]:
    """Returns the figures of a row."""
    expected = ours.done if theirs.what == "calls" else ours.tokens
    agree = theirs.counted == expected
    if (data_bytes := theirs.more.get("data_bytes")) is not None:
        # A token alone is 16 bytes.
        agree = agree and data_bytes >= 16 * ours.tokens
    return {"counts": theirs.what, "expected": expected, "counted": theirs.counted, "agree": agree, **theirs.more}


def ghz_calls(report: str) -> int:
    """Returns how many calls ended well, by ghz's report as JSON."""
    return int(json.loads(report)["statusCodeDistribution"].get("OK", 0))


def ghz_received(log: str) -> tuple[int, int]:
    """Returns how many tokens and messages ghz has received, by its debug log."""
    tokens = messages = 0
    for line in log.splitlines():
        if '"Receive message"' in line and (response := json.loads(line)["response"]):
            messages += 1
            tokens += sum(len(_TOKEN.findall(text)) for text in _DELTA_TEXT.findall(response))
    return tokens, messages


def h2load_calls(output: str) -> tuple[int, int]:
    """Returns how many answers h2load has had and how many bytes of data.

    It looks neither into messages nor at the status of a call. Raises AbsentError if the output is none of its.
    """
    succeeded = re.search(r"(\d+) succeeded, 0 failed, 0 errored, 0 timeout", output)
    data = re.search(r"\((\d+)\) data\s*$", output, re.MULTILINE)
    if data is None or "requests:" not in output:
        raise AbsentError("h2load told nothing that can be read")
    return int(succeeded[1]) if succeeded else 0, int(data[1])


def descriptors(*files: FileDescriptor) -> bytes:
    """Returns a serialized FileDescriptorSet of files and all that they import."""
    found = FileDescriptorSet()
    seen: set[str] = set()

    def add(one: FileDescriptor) -> None:
        if one.name not in seen:
            seen.add(one.name)
            for imported in one.dependencies:
                add(imported)
            one.CopyToProto(found.file.add())

    for file in files:
        add(file)
    return found.SerializeToString()


def _by_our_client(site: Site, system: System, port: int, streams: int) -> Tally:
    calling = site.client.calling(
        system, port, streams=streams, tokens=TOKENS, seconds_max=_SECONDS_MAX, folder=site.folder, name="checked"
    )
    with calling as calls:
        return calls.finish()


def _by_ghz(program: str, site: Site, system: System, port: int) -> Sequence[Count]:
    protos, body, log = (site.folder / f"ghz.{end}" for end in ("protoset", "body", "log"))
    protos.write_bytes(descriptors(generate_service_pb2.DESCRIPTOR, chat_service_pb2.DESCRIPTOR))
    body.write_bytes(system.request(TOKENS))
    log.unlink(missing_ok=True)
    call = system.path.removeprefix("/").replace("/", ".")
    command = [program, "--insecure", "--protoset", str(protos), "--call", call, "--format", "json"]
    command += ["--binary", "--binary-file", str(body), "--timeout", f"{_SECONDS_MAX}s"]
    many = ["--total", str(STREAMS), "--concurrency", str(STREAMS), "--connections", str(_CONNECTIONS)]
    few = ["--total", str(FEW_STREAMS), "--concurrency", "1", "--debug", str(log)]
    calls = ghz_calls(_run([*command, *many, f"127.0.0.1:{port}"]))
    _run([*command, *few, f"127.0.0.1:{port}"])
    tokens, messages = ghz_received(log.read_text())
    return (
        Count(what="calls", streams=STREAMS, counted=calls, more={}),
        Count(what="tokens", streams=FEW_STREAMS, counted=tokens, more={"messages": messages}),
    )


def _by_h2load(program: str, site: Site, system: System, port: int) -> Sequence[Count]:
    message = system.request(TOKENS)
    body = site.folder / "h2load.body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    command = [program, "-n", str(STREAMS), "-c", str(_CONNECTIONS), "-m", str(-(-STREAMS // _CONNECTIONS))]
    command += ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]  # codespell:ignore te
    calls, data_bytes = h2load_calls(_run([*command, f"http://127.0.0.1:{port}{system.path}"]))
    return (Count(what="calls", streams=STREAMS, counted=calls, more={"data_bytes": data_bytes}),)


def _rows(
    tool: str, system: str, ours: Mapping[int, Tally], load: Callable[[], Sequence[Count]]
) -> list[dict[str, Any]]:
    try:
        return [{"tool": tool, "system": system} | compared(ours[one.streams], one) for one in load()]
    except AbsentError as error:
        return [_absent(tool, system, str(error))]


def _absent(tool: str, system: str, why: str) -> dict[str, Any]:
    return {"tool": tool, "system": system, "counts": "-", "expected": "-", "counted": f"absent: {why}", "agree": "-"}


def _ghz(folder: Path) -> str:
    program = folder / f"ghz-{GHZ_VERSION}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            command = [go(), "install", f"github.com/bojand/ghz/cmd/ghz@{GHZ_VERSION}"]
        except ProgramsError as error:
            raise AbsentError("ghz is built with go, which is not on the path") from error
        _run(command, os.environ | {"GOBIN": str(folder), "CGO_ENABLED": "0"}, seconds=_INSTALL_SECONDS)
        (folder / "ghz").replace(program)
    return str(program)


def _h2load(_: Path) -> str:
    if not shutil.which("h2load") and os.geteuid() == 0 and shutil.which("apt-get"):
        _run(["apt-get", "install", "-y", "--no-install-recommends", "nghttp2-client"], seconds=_INSTALL_SECONDS)
    found = shutil.which("h2load")
    if found is None:
        raise AbsentError("h2load, of nghttp2's tools, is not installed")
    return found


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None, *, seconds: float = _SECONDS_MAX) -> str:
    name = Path(command[0]).name
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise AbsentError(f"{name} took more than {seconds:.0f} s") from error
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word of it"])[-1]
        raise AbsentError(f"{name} failed: {last}")
    return ended.stdout


def main() -> int:
    """Checks tokenwire and the bare prototype, prints the rows as JSON, and returns 0 if all that were told agree."""
    from bench.goals import BARE, TOKENWIRE
    from bench.systems.registry import all_systems

    systems = [one for one in all_systems() if one.name in (TOKENWIRE, BARE)]
    with open_site(ensure(), [RATE], Random()) as site:
        rows = check(site, systems)
    for row in rows:
        print(json.dumps(row))
    return 0 if all(row["agree"] in (True, "-") for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
