"""One start of one system: what becomes of samples when something goes wrong."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from bench import visiting
from bench.gateway import Gateway
from bench.plan import Visit
from bench.results import Sample
from bench.scenarios import Kind, Mode
from bench.site import Site
from bench.visiting import NO_TELEMETRY, pay
from bench.void import VoidError
from unit.bench.measured import Fake, gateway, scenario

VISIT = Visit(round=3, system="fake", scenarios=(scenario("call"), scenario("firehose/100")))


class Collected:
    """A site whose collector has taken something between two looks, or nothing."""

    def __init__(self, *received: int) -> None:
        self._received = iter(received)
        self.collector = self

    def received(self) -> int:
        return next(self._received)


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Mapping[str, Sample]]:
    """Pays a visit with measures of a test's own and returns its samples by scenario."""

    def visit(
        measures: Mapping[Kind, Any], *, warm_up: str = "", start: str = "", observed: bool = False, received: int = 5
    ) -> Mapping[str, Sample]:
        @contextmanager
        def running(*_: Any, **__: Any) -> Iterator[Gateway]:
            if start:
                raise VoidError(start)
            made = gateway(tmp_path)
            made.observed = observed
            yield made

        def burst(*_: Any, **__: Any) -> None:
            if warm_up:
                raise VoidError(warm_up)

        monkeypatch.setattr(visiting, "running", running)
        monkeypatch.setattr(visiting, "burst", burst)
        monkeypatch.setattr(visiting, "_MEASURES", measures)
        outcome = pay(cast("Site", Collected(5, received)), Fake(), VISIT, Mode.QUICK)
        assert [one.scenario for one in outcome.samples] == ["call", "firehose/100"]
        assert {(one.system, one.round) for one in outcome.samples} == {("fake", 3)}
        return {one.scenario: one for one in outcome.samples}

    return visit


def gives(**values: float) -> Callable[..., dict[str, float]]:
    return lambda *_: values


def fails(reason: str, **values: float) -> Callable[..., dict[str, float]]:
    def measure(*_: Any) -> dict[str, float]:
        raise VoidError(reason, values)

    return measure


def test_figures_become_samples(visit: Callable[..., Mapping[str, Sample]]) -> None:
    samples = visit({Kind.CALL: gives(call_us=200.0), Kind.FIREHOSE: gives(cpu_us_per_token=2.0)})
    assert samples["call"].values == {"call_us": 200}
    assert samples["firehose/100"].values == {"cpu_us_per_token": 2}
    assert not any(one.void for one in samples.values())


def test_a_void_scenario_leaves_the_next_one_alone_and_keeps_what_it_measured(
    visit: Callable[..., Mapping[str, Sample]],
) -> None:
    samples = visit({Kind.CALL: fails("1 of 100 calls failed", call_us=9.0), Kind.FIREHOSE: gives(cpu_us_per_token=2)})
    assert (samples["call"].void, samples["call"].values) == ("1 of 100 calls failed", {"call_us": 9})
    assert not samples["firehose/100"].void


def test_a_gateway_that_does_not_start_is_void_in_all_it_was_to_be_measured_in(
    visit: Callable[..., Mapping[str, Sample]],
) -> None:
    samples = visit({}, start="port 15000 is busy")
    assert {one.void for one in samples.values()} == {"port 15000 is busy"}


def test_a_warm_up_that_fails_is_void_in_all_that_follows(visit: Callable[..., Mapping[str, Sample]]) -> None:
    samples = visit({}, warm_up="25 tokens came of 50")
    assert {one.void for one in samples.values()} == {"25 tokens came of 50"}


def test_a_gateway_that_should_send_telemetry_and_does_not_is_void(
    visit: Callable[..., Mapping[str, Sample]],
) -> None:
    measures = {Kind.CALL: gives(call_us=200.0), Kind.FIREHOSE: fails("too busy")}
    samples = visit(measures, observed=True)
    assert samples["call"].void == NO_TELEMETRY
    assert samples["call"].values == {"call_us": 200}
    # The first reason stands.
    assert samples["firehose/100"].void == "too busy"
    assert not visit(measures, observed=True, received=6)["call"].void
    assert not visit(measures, observed=False)["call"].void


def test_before_memory_is_measured_few_streams_warm_up_shortly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked_for: list[tuple[int, int]] = []
    monkeypatch.setattr(visiting, "burst", lambda *_, **asked: asked_for.append((asked["streams"], asked["tokens"])))
    for name in ("memory/1000", "paced/100"):
        visiting._warm_up(cast("Site", None), gateway(tmp_path), scenario(name))
    assert asked_for == [(5, 2), (100, 25)]
