"""What a benchmark needs to know of a gateway to start it and to load it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Wire(StrEnum):
    """How a client speaks to a gateway."""

    GRPC = "grpc"
    # Server-sent events over HTTP/1.1, as OpenAI's API has them.
    SSE = "sse"


class Dialect(StrEnum):
    """What the engine speaks: vLLM's two, and SGLang's own."""

    COMPLETIONS = "completions"
    CHAT = "chat"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a gateway is started.

    Attributes:
        port: it listens here, on 127.0.0.1.
        engine_port: the engine that it asks listens here, on 127.0.0.1.
        folder: its own, empty, removed afterwards.
        collector_url: where spans and metrics go, by OTLP over HTTP.
        processes: how many of the gateway's processes share the port.
    """

    port: int
    engine_port: int
    folder: Path
    collector_url: str
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A process that a gateway needs beside it, such as Redis. It is started first; what it costs is told apart.

    Attributes:
        command: with its arguments.
        socket: a Unix socket at which it takes connections once it serves.
    """

    command: Sequence[str]
    socket: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a gateway is started.

    Attributes:
        command: with its arguments.
        environment: variables besides those of the benchmark itself.
        ready_path: a path that answers 200 over HTTP once it serves; empty: it serves once its port takes connections
            and, over gRPC, answers a first call.
        companions: what it needs beside it.
        observed: whether it sends spans or metrics to the collector: if none come, what was measured does not count.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = ""
    companions: Sequence[Companion] = ()
    observed: bool = False


class System(Protocol):
    """A gateway that can be measured."""

    @property
    def name(self) -> str:
        """Its name, as in the tables."""
        ...

    @property
    def wire(self) -> Wire:
        """What its clients speak."""
        ...

    @property
    def path(self) -> str:
        """The RPC's or the URL's path."""
        ...

    @property
    def dialect(self) -> Dialect:
        """What it speaks to the engine here."""
        ...

    def absent(self) -> str:
        """Returns why it cannot be measured here, in a few words; empty if it can. Builds what it needs first."""
        ...

    def version(self) -> str:
        """Returns its version."""
        ...

    def launch(self, stage: Stage) -> Launch:
        """Returns how it is started."""
        ...

    def request(self, tokens: int) -> bytes:
        """Returns the body of a request whose answer has so many tokens: a protobuf message, or JSON."""
        ...
