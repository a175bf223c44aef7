"""The times below an answer: what the server told, and what was measured here."""

import json

import pytest

from tokenwire.cli.timings import Timed
from tokenwire.v1.event_pb2 import Delta, End, Event, Start
from tokenwire.v1.finish_pb2 import Timings, Usage

END = End(
    usage=Usage(prompt_tokens=12, cached_tokens=4, output_tokens=3),
    timings=Timings(
        queued_ms=1,
        scheduled_ms=20,
        first_token_ms=120,
        completed_ms=220,
        time_to_first_token_ms=130,
        mean_time_between_tokens_ms=50.126,
        p99_time_between_tokens_ms=60,
        tokens_per_second=20,
    ),
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Inner:
    """Prints where it is closed, to see the order."""

    def event(self, event: Event) -> None:
        pass

    def note(self, text: str) -> None:
        print(f"note {text}")

    def close(self) -> None:
        print("closed", flush=True)


def answered(clock: Clock, *events: Event, as_json: bool = False, connection_ms: float | None = 3.14159) -> None:
    timed = Timed(Inner(), as_json=as_json, connection_ms=connection_ms, monotonic=clock)
    for event in events:
        clock.now += 0.25
        timed.event(event)
    clock.now += 0.5
    timed.close()


START, TEXT = Event(start=Start()), Event(delta=Delta(text="x"))


def test_people_read_a_line_for_each_time_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    answered(Clock(), START, TEXT, TEXT, Event(end=END))
    out, err = capsys.readouterr()
    assert out == "closed\n"
    assert dict(line.split("\t") for line in err.splitlines()) == {
        "queued": "1 ms",
        "scheduled": "20 ms",
        "first token": "120 ms",
        "per token, mean": "50.13 ms",
        "per token, p99": "60.0 ms",
        "total": "220 ms",
        "tokens per second": "20.0",
        "prompt tokens": "12",
        "cached tokens": "4",
        "output tokens": "3",
        "here: connection": "3.1 ms",
        "here: first text": "500.0 ms",
        "here: total": "1500.0 ms",
    }


def test_programs_read_one_more_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    answered(Clock(), Event(reasoning_delta=Delta(text="x")), Event(end=END), as_json=True)
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])["timings"]
    assert (out.splitlines()[0], err) == ("closed", "")
    assert told["server"]["time_to_first_token_ms"] == 130
    assert told["tokens"] == {"prompt": 12, "cached": 4, "output": 3}
    assert told["client"] == {"connection_ms": 3.1, "first_text_ms": 250.0, "total_ms": 1000.0}


def test_an_answer_without_an_end_has_the_clients_times_alone(capsys: pytest.CaptureFixture[str]) -> None:
    answered(Clock(), TEXT, connection_ms=None)
    assert capsys.readouterr().err == "here: first text\t250.0 ms\nhere: total\t750.0 ms\n"


def test_a_call_that_brought_nothing_has_no_times(capsys: pytest.CaptureFixture[str]) -> None:
    answered(Clock(), START)
    assert capsys.readouterr().err == ""
