"""What the settings say about traces and metrics."""

from tokenwire.settings import Settings
from tokenwire.settings.telemetry import OtlpTarget
from tokenwire.telemetry.plan import Otlp, Plan


def plan(settings: Settings) -> Plan:
    """Returns what leaves the process."""
    return Plan(
        traces=_otlp(settings.otlp("traces")),
        metrics=_otlp(settings.otlp("metrics")),
        prometheus=settings.prometheus,
        flush_seconds=settings.otel_flush_seconds,
    )


def _otlp(target: OtlpTarget | None) -> Otlp | None:
    return Otlp(protocol=target.protocol, endpoint=target.endpoint) if target else None
