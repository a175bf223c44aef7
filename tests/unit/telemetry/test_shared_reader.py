"""Metrics that are sent and scraped are counted once, and neither takes anything from the other."""

import asyncio
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from tokenwire.telemetry import sdk
from tokenwire.telemetry.plan import Otlp, Plan
from tokenwire.telemetry.scrape import Scrape
from tokenwire.telemetry.shared_reader import SharedReader, is_shareable

DELTA = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
CUMULATIVE = dict.fromkeys((Counter, Histogram), AggregationTemporality.CUMULATIVE)


class Keeping(MetricExporter):
    """Keeps the value of the counter in each export."""

    def __init__(self, **preferred: Any) -> None:
        super().__init__(**preferred)
        self.sent: list[float] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any) -> MetricExportResult:
        ((scope,),) = (one.scope_metrics for one in metrics_data.resource_metrics)
        (point,) = scope.metrics[0].data.data_points
        assert isinstance(point, NumberDataPoint)
        self.sent.append(point.value)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        pass


def planned(exporter: Keeping, monkeypatch: pytest.MonkeyPatch) -> tuple[MeterProvider, Scrape, Sequence[MetricReader]]:
    """Returns what is made of a plan for both, and the readers among it."""
    readers: list[MetricReader] = []

    def metered(found: Sequence[MetricReader], version: str, instance_id: str) -> MeterProvider:
        readers.extend(found)
        return made(found, version, instance_id)

    made = sdk.metered
    monkeypatch.setattr(sdk, "metric_exporter", lambda target: exporter)
    monkeypatch.setattr(sdk, "metered", metered)
    provider, scrape = sdk.meter_provider(Plan(metrics=Otlp(protocol="grpc"), prometheus=True), "1", "id")
    assert scrape is not None
    return provider, scrape, readers


async def scraped(scrape: Scrape) -> float:
    text, _ = await scrape.text("")
    (line,) = (line for line in text.decode().splitlines() if line.startswith("counted_total"))
    return float(line.split()[-1])


@pytest.mark.asyncio
@pytest.mark.parametrize(("temporality", "sent"), [(None, [1, 3]), (CUMULATIVE, [1, 3]), (DELTA, [1, 2])])
async def test_what_is_scraped_is_not_sent_and_what_is_sent_can_still_be_scraped(
    temporality: dict[type, AggregationTemporality] | None, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Keeping(preferred_temporality=temporality)
    provider, scrape, readers = planned(exporter, monkeypatch)
    assert len(readers) == (2 if temporality is DELTA else 1)
    counter = provider.get_meter("test").create_counter("counted")
    counter.add(1)
    assert [await scraped(scrape) for _ in range(2)] == [1, 1]
    assert exporter.sent == []
    readers[0].force_flush()
    counter.add(2)
    assert await scraped(scrape) == 3
    provider.shutdown()
    assert exporter.sent == sent


@pytest.mark.asyncio
async def test_scrapes_and_exports_at_the_same_time_each_get_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Keeping()
    provider, scrape, _ = planned(exporter, monkeypatch)
    provider.get_meter("test").create_counter("counted").add(7)
    exports = [asyncio.to_thread(provider.force_flush) for _ in range(20)]
    values, *_ = await asyncio.gather(asyncio.gather(*(scraped(scrape) for _ in range(20))), *exports)
    assert (values, exporter.sent) == ([7] * 20, [7] * 20)
    provider.shutdown()


def test_an_export_that_comes_in_the_middle_of_a_scrape_is_sent() -> None:
    exporter = Keeping()
    reader = SharedReader(exporter)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    meter.create_counter("counted").add(7)
    data = reader.read()
    assert data is not None

    def look(_: CallbackOptions) -> Iterable[Observation]:
        exporting = threading.Thread(target=reader._receive_metrics, args=(data,))
        exporting.start()
        exporting.join()
        yield Observation(1)

    meter.create_observable_gauge("looked", [look])
    found = reader.read()
    assert exporter.sent == [7]
    assert found is not None
    assert found is not data
    provider.shutdown()


@pytest.mark.asyncio
async def test_without_any_metric_there_is_nothing_to_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, scrape, (reader,) = planned(Keeping(), monkeypatch)
    assert isinstance(reader, SharedReader)
    assert reader.read() is None
    assert (await scrape.text(""))[0] == b""
    provider.shutdown()


def test_an_exporter_that_wants_other_figures_than_a_scraper_has_a_reader_of_its_own() -> None:
    assert is_shareable(Keeping())
    assert not is_shareable(Keeping(preferred_temporality=DELTA))
    assert not is_shareable(Keeping(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()}))
