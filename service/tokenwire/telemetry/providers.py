"""The SDK's providers of traces and metrics: made only if something is to leave the process."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

import structlog

from tokenwire.telemetry.plan import Plan, TelemetryError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from tokenwire.telemetry.scrape import Scrape

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """What makes spans and instruments; None: nothing does.

    Attributes:
        tracers: the provider of traces.
        meters: the provider of metrics.
        scrape: the metrics for Prometheus.
    """

    tracers: "TracerProvider | None" = None
    meters: "MeterProvider | None" = None
    scrape: "Scrape | None" = None


@contextmanager
def exporting(plan: Plan, version: str) -> Iterator[Providers]:
    """Makes the providers, for the whole process, and sends what is left when the block ends, within the plan's time.

    Without anything to send it neither loads the SDK nor starts a thread. Raises TelemetryError if one of the SDK's
    variables makes no sense.
    """
    with providers(plan, version, str(uuid.uuid4())) as made:
        if made.tracers is not None:
            from opentelemetry import trace

            trace.set_tracer_provider(made.tracers)
        if made.meters is not None:
            from opentelemetry import metrics

            metrics.set_meter_provider(made.meters)
        yield made


@contextmanager
def providers(plan: Plan, version: str, instance_id: str) -> Iterator[Providers]:
    """Makes the providers for whoever asks them, and shuts them down when the block ends."""
    if plan.traces is None and plan.metrics is None and not plan.prometheus:
        yield Providers()
        return
    # A server that sends nothing need not load the SDK.
    from tokenwire.telemetry.sdk import meter_provider, tracer_provider
    from tokenwire.telemetry.trouble import Trouble, in_our_words

    with in_our_words(Trouble()):
        closing: list[Callable[[], object]] = []
        tracers = meters = scrape = None
        try:
            if plan.traces is not None:
                with _refusing("traces"):
                    tracers = tracer_provider(plan.traces, version, instance_id)
                closing.append(tracers.shutdown)
            if plan.metrics is not None or plan.prometheus:
                with _refusing("metrics"):
                    meters, scrape = meter_provider(plan, version, instance_id)
                closing.append(meters.shutdown)
            yield Providers(tracers=tracers, meters=meters, scrape=scrape)
        finally:
            _within(plan.flush_seconds, closing)


@contextmanager
def _refusing(signal: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The SDK's own words may hold a header or a path.
        raise TelemetryError(
            f"{signal} cannot be exported ({type(error).__name__}): one of the variables OTEL_* makes no sense"
        ) from error


def _within(seconds: float, closing: Sequence[Callable[[], object]]) -> None:
    """Calls all at the same time, and leaves behind those that take longer."""
    # Daemons, unlike a pool's: a collector that does not answer must not hold up the end of the process.
    threads = [Thread(target=close, name="telemetry-end", daemon=True) for close in closing]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        _log.warning("the last telemetry was not sent in time", seconds=seconds)
