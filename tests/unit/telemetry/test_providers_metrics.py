"""How metrics are counted, and how Prometheus reads them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families

from harness.service import service
from tokenwire.telemetry import names
from tokenwire.telemetry.instruments import Instruments
from tokenwire.telemetry.plan import Plan
from tokenwire.telemetry.sdk import meter_provider, metered
from tokenwire.telemetry.views import CARDINALITY_LIMITS, SERIES_MAX

# What the SDK takes for a histogram of which it knows nothing: milliseconds.
UNFIT = 10_000.0
CONVENTIONS = {
    names.SERVER_DURATION: (0.01, 0.64, 81.92),
    names.SERVER_FIRST_TOKEN: (0.001, 0.06, 10.0),
    names.SERVER_PER_TOKEN: (0.01, 0.4, 2.5),
    names.RPC_DURATION: (0.005, 0.25, 10.0),
    names.CLIENT.duration: (0.01, 0.64, 81.92),
}


def _collected(reader: InMemoryMetricReader) -> dict[str, Metric]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def _bounds(metric: Metric) -> tuple[float, ...]:
    [point] = metric.data.data_points
    assert isinstance(point, HistogramDataPoint)
    return tuple(point.explicit_bounds)


@pytest.mark.parametrize("latest", [False, True])
def test_every_histogram_has_buckets_that_suit_it_and_durations_reach_an_hour(latest: bool) -> None:
    reader = InMemoryMetricReader(cardinality_limits=CARDINALITY_LIMITS)
    provider = metered([reader], "1", "id")
    instruments = Instruments(provider.get_meter("test"), latest=latest)
    for instrument in vars(instruments).values():
        for one in (instrument, *vars(instrument).values()) if hasattr(instrument, "__dict__") else (instrument,):
            if hasattr(one, "record") and hasattr(one, "name"):
                one.record(1)
    instruments.client_tokens.record({}, read=1, cached=0, written=1, reasoning=0)
    found = _collected(reader)
    durations = [found[name] for name in (names.SERVER_DURATION, names.RPC_DURATION)]
    durations.append(found[(names.CLIENT_LATEST if latest else names.CLIENT).duration])
    assert [max(_bounds(metric)) for metric in durations] == [3600] * 3
    for name, known in CONVENTIONS.items():
        if name in found:
            assert set(known) <= set(_bounds(found[name]))
    histograms = [one for one in found.values() if isinstance(one.data.data_points[0], HistogramDataPoint)]
    assert len(histograms) >= 9
    for metric in histograms:
        for point in metric.data.data_points:
            assert isinstance(point, HistogramDataPoint)
            assert UNFIT not in point.explicit_bounds
    provider.shutdown()


def test_no_exemplar_is_kept_and_too_many_labels_are_one_series() -> None:
    reader = InMemoryMetricReader(cardinality_limits=CARDINALITY_LIMITS)
    provider = metered([reader], "1", "id")
    meter = provider.get_meter("test")
    counter, histogram = meter.create_counter("counted"), meter.create_histogram(names.SERVER_DURATION)
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("one"):
        for number in range(SERIES_MAX + 10):
            counter.add(1, {"label": number})
            histogram.record(1.0, {"label": number})
    found = _collected(reader)
    for metric in found.values():
        points = metric.data.data_points
        assert len(points) == SERIES_MAX + 1
        assert not any(point.exemplars for point in points)
        [rest] = [point for point in points if point.attributes == {"otel.metric.overflow": True}]
        assert (rest.count if isinstance(rest, HistogramDataPoint) else rest.value) == 10  # type: ignore[union-attr]
    provider.shutdown()


@pytest.mark.asyncio
async def test_prometheus_reads_text_of_both_kinds_and_nothing_that_is_not_ours() -> None:
    provider, scrape = meter_provider(Plan(prometheus=True), "1.2.3", "id")
    assert scrape is not None
    meter = provider.get_meter("test")
    meter.create_counter("tokenwire.counted", "{thing}").add(2, {"tokenwire.engine.name": 'a"b\\c\nd'})
    meter.create_histogram(names.SERVER_DURATION, "s").record(100)
    body, content_type = await scrape.text("text/plain")
    assert content_type.startswith("text/plain")
    families = {family.name: family for family in parser.text_string_to_metric_families(body.decode())}
    assert set(families) == {"target_info", "tokenwire_counted", "gen_ai_server_request_duration_seconds"}
    [sample] = families["tokenwire_counted"].samples
    assert (sample.value, sample.labels) == (2, {"tokenwire_engine_name": 'a"b\\c\nd'})
    assert families["target_info"].samples[0].labels["service_version"] == "1.2.3"
    buckets = {one.labels["le"]: one.value for one in families["gen_ai_server_request_duration_seconds"].samples[:-2]}
    assert (buckets["81.92"], buckets["163.84"]) == (0, 1)
    body, content_type = await scrape.text("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    opened = list(open_families(body.decode()))  # type: ignore[no-untyped-call]
    assert {family.name for family in opened} == {*families, "target"} - {"target_info"}
    provider.shutdown()


@pytest.mark.asyncio
async def test_scrapes_at_the_same_time_all_see_everything() -> None:
    provider, scrape = meter_provider(Plan(prometheus=True), "1", "id")
    assert scrape is not None
    provider.get_meter("test").create_counter("counted").add(1)
    bodies = await asyncio.gather(*(scrape.text("") for _ in range(8)))
    assert len({body for body, _ in bodies}) == 1
    assert b"counted_total" in bodies[0][0]
    provider.shutdown()


class _Listing(NoOpMeter):
    """Notes the names of all instruments."""

    def __init__(self) -> None:
        super().__init__("test")
        self.names: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        made = super().__getattribute__(name)
        if not name.startswith("create_"):
            return made

        def create(instrument: str, *arguments: Any, **options: Any) -> Any:
            self.names.add(instrument)
            return made(instrument, *arguments, **options)

        return create


@pytest.mark.asyncio
@pytest.mark.parametrize("latest", [False, True])
async def test_every_instrument_of_a_server_is_in_the_documents(latest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = _Listing()
    monkeypatch.setattr("tokenwire.app.metrics.get_meter", lambda name: meter)
    async with service(semconv_opt_in=latest):
        pass
    document = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text()
    assert len(meter.names) > 15
    assert not [name for name in meter.names if f"`{name}`" not in document]
