"""Metrics as Prometheus reads them."""

import asyncio

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tokenwire.telemetry.views import CARDINALITY_LIMITS


class Scrape:
    """The metrics of a process as text, in the form that a scraper asks for.

    Attributes:
        reader: to be given to the meter provider.
    """

    def __init__(self) -> None:
        # Of its own: the library's registry would add figures of the interpreter, and is shared by all.
        self._registry = CollectorRegistry()
        self.reader: MetricReader = PrometheusMetricReader(
            registry=self._registry, scope_info_enabled=False, cardinality_limits=CARDINALITY_LIMITS
        )
        self._one_at_a_time = asyncio.Lock()

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Returns all metrics and their content type: OpenMetrics if `accept` names it, else Prometheus's own."""
        encoder, content_type = choose_encoder(accept)
        async with self._one_at_a_time:
            # In a thread: thousands of series take some milliseconds, and streams go on meanwhile.
            body = await asyncio.to_thread(encoder, self._registry)
        return body, content_type
