"""tokenwire itself, in several settings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from bench.goals import FILE_JOURNAL, REDIS_JOURNAL, TELEMETRY_OFF, TOKENWIRE
from bench.rows import CHAT, GENERATE, GRPC_AIO
from bench.system import Companion, Dialect, Launch, Stage, System, Wire
from bench.systems.requests import CHAT_PATH, GENERATE_PATH, chat, generate
from harness.redis_server import find_server
from tokenwire import __version__

_ROOT = Path(__file__).parents[3]
_PYTHON_PATH = ":".join(str(_ROOT / name) for name in ("service", "clients/python"))
_KINDS = {Dialect.COMPLETIONS: "vllm", Dialect.CHAT: "vllm", Dialect.GENERATE: "sglang"}
# Spans go as often as they do by default; metrics twelve times as often, so that a run of some seconds pays for them.
_EXPORT = {"OTEL_METRIC_EXPORT_INTERVAL": "5000", "OTEL_SERVICE_NAME": "tokenwire"}


class Journal(Enum):
    """Where runs are written."""

    MEMORY = auto()
    FILE = auto()
    REDIS = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenwire:
    """A setting of tokenwire; see `System`. What is not said here is as it is by default, validation included.

    Attributes:
        journal: where runs are written.
        telemetry: whether spans and metrics are made, sent to the collector, and served on the admin port.
        transport: what speaks HTTP/2; empty: the default.
    """

    name: str
    dialect: Dialect = Dialect.COMPLETIONS
    journal: Journal = Journal.MEMORY
    telemetry: bool = True
    transport: str = ""
    wire: Wire = Wire.GRPC

    @property
    def path(self) -> str:
        """The RPC's path."""
        return CHAT_PATH if self.dialect is Dialect.CHAT else GENERATE_PATH

    def absent(self) -> str:
        """Returns why it cannot be measured here; empty if it can."""
        missing = self.journal is Journal.REDIS and find_server() is None
        return "no Redis and no Valkey is installed" if missing else ""

    def version(self) -> str:
        """Returns tokenwire's version."""
        return __version__

    def launch(self, stage: Stage) -> Launch:
        """Returns how it is started."""
        engine = f"bench:{_KINDS[self.dialect]}=http://127.0.0.1:{stage.engine_port}"
        command = [sys.executable, "-m", "tokenwire", "serve", "--listen", f"127.0.0.1:{stage.port}"]
        command += ["--engine", engine, "--log-level", "error"]
        environment = {"PYTHONPATH": _PYTHON_PATH}
        companions = []
        if self.transport:
            command += ["--transport", self.transport]
        if self.telemetry:
            environment |= _EXPORT | {"OTEL_EXPORTER_OTLP_ENDPOINT": stage.collector_url}
            command += ["--otel-endpoint", stage.collector_url, "--admin-listen", "127.0.0.1:0"]
        if self.journal is Journal.FILE:
            command += ["--journal", f"file:{stage.folder / 'journal'}"]
        elif self.journal is Journal.REDIS:
            companions.append(_redis(stage.folder / "redis.sock"))
            command += ["--journal", f"unix://{stage.folder / 'redis.sock'}"]
        return Launch(command=command, environment=environment, companions=companions, observed=self.telemetry)

    def request(self, tokens: int) -> bytes:
        """Returns a request for so many tokens."""
        return chat(tokens) if self.dialect is Dialect.CHAT else generate(tokens)


SETTINGS: Sequence[System] = (
    Tokenwire(name=TOKENWIRE),
    Tokenwire(name=FILE_JOURNAL, journal=Journal.FILE),
    Tokenwire(name=REDIS_JOURNAL, journal=Journal.REDIS),
    Tokenwire(name=TELEMETRY_OFF, telemetry=False),
    Tokenwire(name=GRPC_AIO, transport="grpc_aio"),
    Tokenwire(name=CHAT, dialect=Dialect.CHAT),
    Tokenwire(name=GENERATE, dialect=Dialect.GENERATE),
)


def _redis(socket: Path) -> Companion:
    program = find_server()
    assert program is not None, "the row is absent"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    return Companion(command=command, socket=socket)
