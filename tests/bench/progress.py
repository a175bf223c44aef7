"""Tells how a benchmark goes: a bar on a terminal, a line a measurement elsewhere, or JSON for machines."""

import sys
from typing import Protocol, Self, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.plan import Plan, Visit
from bench.results import Sample

# What a line tells of a sample, in this order, as far as it is there.
_FIGURES = {
    "cpu_us_per_token": "us/token",
    "call_us": "us/call",
    "messages_per_token": "messages/token",
    "syscalls_per_token": "system calls/token",
    "rss_bytes_per_stream": "bytes/stream",
    "ttft_p50_us": "us to the first token",
    "added_p50_us": "us p50",
    "added_p99_us": "us p99",
    "tokens_per_second": "tokens/s",
}


class Watcher(Protocol):
    """Who is told."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def says(self, text: str) -> None:
        """Something to know, in a sentence."""
        ...

    def planned(self, plan: Plan) -> None:
        """What will be measured."""
        ...

    def begins(self, visit: Visit) -> None:
        """A system is started."""
        ...

    def measured(self, sample: Sample) -> None:
        """A sample has been taken."""
        ...

    def ends(self, visit: Visit) -> None:
        """A system has been stopped."""
        ...


class Lines:
    """One plain line for each measurement."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._total = self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def says(self, text: str) -> None:
        """Writes it."""
        print(text, file=self._stream, flush=True)

    def planned(self, plan: Plan) -> None:
        """Writes how much there is to do."""
        self._total = sum(len(one.scenarios) for one in plan.visits)
        self.says(told(plan))

    def begins(self, visit: Visit) -> None:
        """Writes nothing: a line is written when there is a figure."""

    def measured(self, sample: Sample) -> None:
        """Writes the sample's figures, or why it is void."""
        self._done += 1
        self.says(f"{self._done}/{self._total} round {sample.round} {line(sample)}")

    def ends(self, visit: Visit) -> None:
        """Writes nothing."""


class Bar:
    """A bar on a terminal; void samples are named above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("setting up", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def says(self, text: str) -> None:
        """Writes it above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def planned(self, plan: Plan) -> None:
        """Sets the bar's length."""
        self.says(told(plan))
        self._progress.update(self._task, total=len(plan.visits))

    def begins(self, visit: Visit) -> None:
        """Shows who is measured in what."""
        names = ", ".join(one.name for one in visit.scenarios)
        self._progress.update(self._task, description=f"round {visit.round}: {visit.system}, {names}")

    def measured(self, sample: Sample) -> None:
        """Names a void sample."""
        if sample.void:
            self.says(f"round {sample.round} {line(sample)}")

    def ends(self, visit: Visit) -> None:
        """Moves the bar."""
        self._progress.advance(self._task)


class JsonLines:
    """One JSON object a line, each with the name of what happened in `event`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def says(self, text: str) -> None:
        """Writes a `note`."""
        self._write("note", text=text)

    def planned(self, plan: Plan) -> None:
        """Writes the `plan`."""
        self._write(
            "plan",
            mode=plan.mode,
            rounds=plan.rounds,
            visits=len(plan.visits),
            measurements=sum(len(one.scenarios) for one in plan.visits),
            seconds=round(plan.seconds),
        )

    def begins(self, visit: Visit) -> None:
        """Writes a `start`."""
        self._write("start", **_names(visit))

    def measured(self, sample: Sample) -> None:
        """Writes a `sample`."""
        self._write("sample", sample=sample)

    def ends(self, visit: Visit) -> None:
        """Writes an `end`."""
        self._write("end", **_names(visit))

    def _write(self, event: str, **values: object) -> None:
        print(msgspec.json.encode({"event": event, **values}).decode(), file=self._stream, flush=True)


def watcher(*, json: bool) -> Watcher:
    """Returns who is to be told, as the standard output wants it."""
    if json:
        return JsonLines(sys.stdout)
    console = Console()
    return Bar(console) if console.is_terminal else Lines(sys.stdout)


def told(plan: Plan) -> str:
    """Returns how much a plan has to do, in a sentence."""
    count = sum(len(one.scenarios) for one in plan.visits)
    time = f"{plan.seconds:.0f} seconds" if plan.seconds < 120 else f"{plan.seconds / 60:.0f} minutes"
    return f"{count} measurements in {plan.rounds} rounds, {plan.mode}: about {time}"


def line(sample: Sample) -> str:
    """Returns a sample in a line."""
    figures = ", ".join(f"{sample.values[key]:.4g} {unit}" for key, unit in _FIGURES.items() if key in sample.values)
    parts = [f"{sample.scenario} {sample.system}:", figures, f"VOID: {sample.void}" if sample.void else ""]
    return " ".join(part for part in parts if part)


def _names(visit: Visit) -> dict[str, object]:
    return {
        "round": visit.round,
        "system": visit.system,
        "scenarios": [one.name for one in visit.scenarios],
    }
