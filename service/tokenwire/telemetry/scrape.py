"""Metrics as Prometheus reads them."""

import asyncio
from collections.abc import Callable
from typing import cast

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from tokenwire.telemetry.views import CARDINALITY_LIMITS


class Scrape:
    """The metrics of a process as text, in the form that a scraper asks for.

    Args:
        read: tells the metrics as they are now; without it the meter provider is to be given the reader.

    Attributes:
        reader: takes the metrics.
    """

    def __init__(self, read: Callable[[], MetricsData | None] | None = None) -> None:
        # Of its own: the library's registry would add figures of the interpreter, and is shared by all.
        self._registry = CollectorRegistry()
        self.reader: MetricReader = PrometheusMetricReader(
            registry=self._registry, scope_info_enabled=False, cardinality_limits=CARDINALITY_LIMITS
        )
        if read is not None:
            # As a provider would, which counts for each of its readers. It may say None, whatever the type says.
            self.reader._set_collect_callback(lambda _, timeout_millis: cast("MetricsData", read()))  # noqa: SLF001
        self._one_at_a_time = asyncio.Lock()

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Returns all metrics and their content type: OpenMetrics if `accept` names it, else Prometheus's own."""
        encoder, content_type = choose_encoder(accept)
        async with self._one_at_a_time:
            # In a thread: thousands of series take some milliseconds, and streams go on meanwhile.
            body = await asyncio.to_thread(encoder, self._registry)
        return body, content_type
