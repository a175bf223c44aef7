"""How metrics are counted: the buckets of histograms, and how many series an instrument may have."""

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics import _Gauge as Gauge
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from tokenwire.telemetry import names

# Further combinations of labels are counted together, as otel.metric.overflow.
SERIES_MAX = 500

# Those of the conventions, and beyond, since a stream may take many minutes.
CALL_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)
DURATION_SECONDS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68, 655.36, 1310.72, 3600.0),
)
# Those of the conventions, and beyond, for prompts that wait.
FIRST_TOKEN_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 120.0),
)
# Those of the conventions, and finer, for engines that are faster than 100 tokens per second.
PER_TOKEN_SECONDS = (
    *(0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)

_BUCKETS = {
    names.RPC_DURATION: CALL_SECONDS,
    names.SERVER_DURATION: DURATION_SECONDS,
    names.SERVER_FIRST_TOKEN: FIRST_TOKEN_SECONDS,
    names.SERVER_PER_TOKEN: PER_TOKEN_SECONDS,
    names.CLIENT.duration: DURATION_SECONDS,
    names.CLIENT.per_chunk: PER_TOKEN_SECONDS,
    names.CLIENT_LATEST.duration: DURATION_SECONDS,
    names.CLIENT_LATEST.per_chunk: PER_TOKEN_SECONDS,
}

# For every reader of metrics.
CARDINALITY_LIMITS: dict[type, int] = dict.fromkeys(
    (Counter, UpDownCounter, Histogram, Gauge, ObservableCounter, ObservableUpDownCounter, ObservableGauge), SERIES_MAX
)


def views() -> list[View]:
    """Returns the views of the histograms for which the conventions' own buckets are too few; others keep theirs."""
    return [
        View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(boundaries))
        for name, boundaries in _BUCKETS.items()
    ]
