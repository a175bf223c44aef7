"""Metrics that are both sent and scraped: counted once for both, since each reader of the SDK counts for itself."""

import threading
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import DefaultAggregation, ExplicitBucketHistogramAggregation

from tokenwire.telemetry.views import CARDINALITY_LIMITS

# As a scraper reads them.
_KINDS = (DefaultAggregation, ExplicitBucketHistogramAggregation)


def is_shareable(exporter: MetricExporter) -> bool:
    """Whether an exporter wants sums since the start, in buckets: what is scraped is nothing else."""
    # What the SDK's readers ask of an exporter.
    temporalities = (exporter._preferred_temporality or {}).values()  # noqa: SLF001
    aggregations = (exporter._preferred_aggregation or {}).values()  # noqa: SLF001
    return all(one is AggregationTemporality.CUMULATIVE for one in temporalities) and all(
        isinstance(one, _KINDS) for one in aggregations
    )


class SharedReader(PeriodicExportingMetricReader):
    """Sends metrics now and then, and tells them at once whoever asks.

    Args:
        exporter: sends them; a shareable one.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        # Of each thread that asks, what it has been told; the base class begins a thread that sends.
        self._asked = threading.local()
        super().__init__(exporter, cardinality_limits=CARDINALITY_LIMITS)

    def read(self) -> MetricsData | None:
        """Returns all metrics as they are now; None if there are none. May be called by any thread."""
        found: list[MetricsData] = []
        self._asked.told = found
        try:
            self.collect()
        finally:
            self._asked.told = None
        return found[0] if found else None

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> None:
        told: list[MetricsData] | None = getattr(self._asked, "told", None)
        if told is None:
            super()._receive_metrics(metrics_data, timeout_millis, **options)
        else:
            told.append(metrics_data)
