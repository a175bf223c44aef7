"""What leaves the process, and how."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Otlp:
    """Where one signal goes by OTLP.

    Attributes:
        protocol: how it is spoken.
        endpoint: the whole address, with the signal's path over HTTP; empty: the protocol's usual port on this machine.
    """

    protocol: Literal["http/protobuf", "grpc"]
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is made and sent. By default nothing.

    Headers, timeouts, compression, certificates, the sampler, intervals, the service's name and further attributes are
    read by the SDK from its own variables.

    Attributes:
        traces: where traces go; None: they are not made.
        metrics: where metrics are sent; None: nowhere.
        prometheus: whether metrics can be scraped.
        flush_seconds: how long the last ones may take when the process ends.
    """

    traces: Otlp | None = None
    metrics: Otlp | None = None
    prometheus: bool = False
    flush_seconds: float = 5.0


class TelemetryError(Exception):
    """What was planned cannot be made: one of the SDK's variables makes no sense."""
