"""The spans of a run and its attempts tell times in seconds, by a clock that a test moves."""

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from tokenwire.dispatch.ending import end_of
from tokenwire.dispatch.run import Run
from tokenwire.domain.context import Clock
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import Continuation, FinishReason
from tokenwire.domain.generation import ChoiceDone, Piece, Prompt
from tokenwire.domain.request import RunOptions, Submission
from tokenwire.engines.scripted import ScriptedEngine
from tokenwire.journal.log import RunLog
from tokenwire.telemetry import names
from tokenwire.telemetry.instruments import Instruments
from tokenwire.telemetry.lean_tracer import LeanTracers
from tokenwire.telemetry.run_observer import TracingObserver
from tokenwire.telemetry.run_trace import RunTrace


class Watched:
    """Runs, told of step by step."""

    def __init__(self, is_model: Callable[[str], bool] = lambda model: True, sampler: Sampler = ALWAYS_ON) -> None:
        self.now = 100.0
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.observer = TracingObserver(
            LeanTracers(provider).get_tracer(names.SCOPE),
            Instruments(MeterProvider([self._reader], shutdown_on_exit=False).get_meter("test")),
            lambda: self.now,
            is_model,
        )
        self.engine = ScriptedEngine("a")

    def begun(self, request_id: str = "", *, received: float = 0.0) -> tuple[Run, RunTrace]:
        """Returns a run that was received so many seconds ago, and is accepted now."""
        submission = Submission(prompt="hi", run=RunOptions(request_id=request_id))
        told = self.observer.begins("run1", "scripted", submission)
        assert isinstance(told, RunTrace)
        run = Run(
            id="run1",
            tenant="local",
            model="scripted",
            submission=submission,
            prompt=Prompt(text="hi"),
            engine=self.engine,
            log=RunLog(),
            share=1,
            grace=None,
            stop_seconds=1.0,
            received_at=self.now - received,
            clock=Clock(monotonic=lambda: self.now, wall=lambda: 1_700_000_000 + self.now),
        )
        run.observer = told
        told.accepted(run)
        told.seated(self.engine)
        return run, told

    def attempted(self, run: Run, *waits: float, by: Continuation = Continuation.FIRST, fails: bool = False) -> None:
        """Makes an attempt that writes a token after each wait."""
        attempt = run.observer.attempt(self.engine, by, run.submission, 2, streamed=True)
        run.writer.begin({})
        try:
            with attempt:
                for wait in waits:
                    self.now += wait
                    run.writer.write([Piece(channel=Channel(), text="x", token_ids=(1,), token_count=1)], 1)
                    attempt.first_token()
                if fails:
                    raise EngineError(Code.UNAVAILABLE, "ENGINE_LOST", "it is gone")
        except EngineError:
            run.attempt += 1

    def ended(self, run: Run) -> None:
        """Ends the run."""
        run.writer.write([ChoiceDone(choice=0, finish_reason=FinishReason.STOP)], 1)
        run.log.append(end_of(run, None), run.elapsed_ms())
        run.observer.ended()

    def said(self, start: str) -> list[dict[str, Any]]:
        """Returns the attributes of the ended spans whose names begin so."""
        return [dict(one.attributes or {}) for one in self._exporter.get_finished_spans() if one.name.startswith(start)]

    def labels(self, name: str) -> list[dict[str, Any]]:
        """Returns the labels of an instrument's series."""
        data = self._reader.get_metrics_data()
        assert data is not None
        metrics = [one for whole in data.resource_metrics for scope in whole.scope_metrics for one in scope.metrics]
        return [dict(point.attributes or {}) for one in metrics if one.name == name for point in one.data.data_points]


def test_times_are_seconds_from_the_call_from_the_attempt_and_between_tokens() -> None:
    watched = Watched()
    run, _ = watched.begun(received=0.25)
    watched.attempted(run, 2.0, 0.5, 0.75)
    watched.ended(run)
    (told,), (tried,) = watched.said("run "), watched.said("text_completion")
    assert told["tokenwire.run.time_to_first_token"] == 2.25
    assert told["tokenwire.run.time_per_output_token"] == 0.625
    assert tried["gen_ai.response.time_to_first_chunk"] == 2.0


def test_the_pause_is_seconds_from_the_last_token_to_the_next_one() -> None:
    watched = Watched()
    run, _ = watched.begun()
    watched.attempted(run, 1.0, fails=True)
    watched.now += 3.0
    watched.attempted(run, 0.5, 0.5, by=Continuation.BY_TEXT)
    watched.ended(run)
    first, second = watched.said("text_completion")
    assert "tokenwire.pause" not in first
    assert (first["error.type"], first["tokenwire.attempt"], first["gen_ai.usage.output_tokens"]) == (
        "ENGINE_LOST",
        1,
        1,
    )
    assert (second["tokenwire.pause"], second["tokenwire.attempt"], second["tokenwire.continuation"]) == (
        3.5,
        2,
        "by_text",
    )


def test_a_model_that_is_no_label_is_still_told_by_the_spans() -> None:
    watched = Watched(is_model=lambda model: False)
    run, _ = watched.begun("mine")
    watched.attempted(run, 1.0)
    watched.ended(run)
    (told,), (tried,) = watched.said("run "), watched.said("text_completion")
    assert {told["gen_ai.request.model"], tried["gen_ai.request.model"]} == {"scripted"}
    assert told["tokenwire.request.id"] == "mine"
    for name in (names.SERVER_DURATION, names.CLIENT.duration):
        assert [one["gen_ai.request.model"] for one in watched.labels(name)] == ["_OTHER"]


def test_runs_of_a_kind_share_what_they_are_labelled_with_and_their_labels_stay_as_they_are() -> None:
    watched = Watched()
    (one, first), (other, second) = watched.begun(), watched.begun()
    assert first.labels is second.labels
    before = dict(first.labels)
    for run in (one, other):
        watched.attempted(run, 1.0)
        watched.ended(run)
    assert first.labels == before


def test_who_was_told_of_a_run_does_not_keep_it() -> None:
    watched = Watched()
    run, told = watched.begun()
    watched.attempted(run, 1.0)
    watched.ended(run)
    assert (told.run, told.attempt_now, watched.observer.runs()) == (None, None, ())
    told.ended()
    assert len(watched.said("run ")) == 1


def test_nothing_is_described_for_spans_that_nobody_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(sampler=ALWAYS_OFF)
    for place in ("attempt_trace.request_attributes", "attempt_trace.usage_attributes", "run_trace.usage_attributes"):
        monkeypatch.setattr(f"tokenwire.telemetry.{place}", None)
    run, _ = watched.begun()
    watched.attempted(run, 1.0)
    watched.ended(run)
    assert (watched.said(""), len(watched.labels(names.SERVER_DURATION))) == ([], 1)
