"""Runs, as `tokenwire runs` asks for and prints them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from tokenwire.cli.connection import Connection
from tokenwire.cli.footer import reason_name
from tokenwire.cli.printing import Output, json_line
from tokenwire.cli.stream import Answer
from tokenwire.cli.tables import print_rows
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import Delivery
from tokenwire.v1.run_pb2 import Run, RunState


@dataclass(frozen=True, slots=True)
class Named:
    """A run by its own id, or by its request's."""

    name: str
    by_request: bool = False

    @property
    def run_id(self) -> str:
        """The run's id, if that is what it is named by."""
        return self.name if self.name.startswith("run_") and not self.by_request else ""

    @property
    def request_id(self) -> str:
        """The request's id, if that is what it is named by."""
        return "" if self.run_id else self.name


async def listed(connection: Connection, state: str, limit: int, timeout: float | None) -> list[Run]:
    """Returns runs, newest first."""
    wanted = RunState.Value(f"RUN_STATE_{state or 'UNSPECIFIED'}")
    return await connection.client.runs(limit=limit, state=wanted, timeout=timeout)


async def found(connection: Connection, named: Named, timeout: float | None) -> Run:
    """Returns a run."""
    return await connection.client.get(named.run_id, request_id=named.request_id, timeout=timeout)


async def cancelled(connection: Connection, named: Named, timeout: float | None) -> Run:
    """Ends a run and returns it."""
    return await connection.client.cancel(named.run_id, request_id=named.request_id, timeout=timeout)


def attached(
    connection: Connection,
    named: Named,
    after: Cursor | None,
    delivery: Delivery | None,
    timeout: float | None,
    output: Output,
) -> Answer:
    """Returns the answer of a run that somebody has begun, to be read."""
    return Answer(
        connection,
        lambda notes: connection.client.attach(
            named.run_id,
            request_id=named.request_id,
            after=after,
            delivery=delivery,
            timeout=timeout,
            on_reconnect=notes,
        ),
        output,
        stays=named.name,
    )


def print_runs(runs: Sequence[Run], *, as_json: bool) -> None:
    """Prints one line for each run."""
    if as_json:
        for run in runs:
            print(json_line(run))
        return
    now = time.time()
    rows = [
        (
            run.run_id,
            run.request_id,
            state_name(run),
            run.model,
            str(run.usage.output_tokens),
            f"{max(0, now - run.create_time.ToMilliseconds() / 1000):.0f} s",
        )
        for run in runs
    ]
    print_rows(("run", "request", "state", "model", "tokens", "age"), rows)


def print_run(run: Run, *, as_json: bool) -> None:
    """Prints all that is known of a run."""
    if as_json:
        print(json_line(run))
        return
    error = run.error
    rows = [
        ("run", run.run_id),
        ("request", run.request_id),
        ("state", state_name(run)),
        ("model", run.model),
        ("engine", run.engine),
        ("begun", _time(run, "create_time")),
        ("ended", _time(run, "end_time")),
        ("readable until", _time(run, "expire_time")),
        ("finish reason", ", ".join(reason_name(choice.finish_reason) for choice in run.choices)),
        ("error", f"{error.reason}: {error.message}" if run.HasField("error") else ""),
        ("tokens", _tokens(run)),
        ("last event", str(run.head.seq)),
        ("readers", str(run.readers)),
        ("labels", ", ".join(f"{name}={value}" for name, value in sorted(run.labels.items()))),
        ("detached", "yes" if run.detached else ""),
        ("text dropped", "yes" if run.text_dropped else ""),
    ]
    print_rows(("", ""), [row for row in rows if row[1]])


def state_name(run: Run) -> str:
    """Returns where a run stands, as people read it."""
    return RunState.Name(run.state).removeprefix("RUN_STATE_").lower()


def _tokens(run: Run) -> str:
    usage = run.usage
    return f"{usage.prompt_tokens} in, {usage.cached_tokens} cached, {usage.output_tokens} out"


def _time(run: Run, field: str) -> str:
    value: Timestamp = getattr(run, field)
    return value.ToJsonString() if run.HasField(field) else ""  # type: ignore[arg-type]
