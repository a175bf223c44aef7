"""`tokenwire runs`."""

from enum import StrEnum
from typing import Annotated

import typer

from tokenwire.cli.options import DEFAULT_RETRIES, DEFAULT_TARGET, Buffer, Json, Quiet, Raw, Retries, Target, Timeout

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

RunName = Annotated[
    str,
    typer.Argument(metavar="ID", help="A run's id (run_...), or a request's id: its latest run.", show_default=False),
]
ByRequest = Annotated[bool, typer.Option("--by-request", help="ID is a request's id, even if it begins with run_.")]


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@commands.callback()
def _runs() -> None:
    """Lists, shows, follows and cancels runs."""


@commands.command()
def ls(
    state: Annotated[State | None, typer.Option("--state", help="Only runs in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    target: Target = DEFAULT_TARGET,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Lists runs, newest first: id, request id, state, model, tokens out, age."""
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.run_records import listed, print_runs

    with Connection(target, as_json=as_json) as connection:
        runs = connection.run(listed(connection, state.name if state else "", limit, timeout))
    print_runs(runs, as_json=as_json)


@commands.command()
def show(
    name: RunName,
    by_request: ByRequest = False,
    target: Target = DEFAULT_TARGET,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Shows what is known of a run."""
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.run_records import Named, found, print_run

    with Connection(target, as_json=as_json) as connection:
        run = connection.run(found(connection, Named(name, by_request=by_request), timeout))
    print_run(run, as_json=as_json)


@commands.command()
def cancel(
    name: RunName,
    by_request: ByRequest = False,
    target: Target = DEFAULT_TARGET,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Ends a run; its text stays readable. A request's id that names no run yet is cancelled in advance."""
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.run_records import Named, cancelled, print_run

    with Connection(target, as_json=as_json) as connection:
        run = connection.run(cancelled(connection, Named(name, by_request=by_request), timeout))
    print_run(run, as_json=as_json)


@commands.command()
def attach(
    name: RunName,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="SEQ|CURSOR", help="Go on after this number or cursor, such as '{\"seq\":41}'."
        ),
    ] = None,
    by_request: ByRequest = False,
    buffer: Buffer = None,
    target: Target = DEFAULT_TARGET,
    timeout: Timeout = None,
    as_json: Json = False,
    quiet: Quiet = False,
    raw: Raw = False,
    retries: Retries = DEFAULT_RETRIES,
) -> None:
    """Streams a run: what is written already, then what comes. Ctrl-C leaves the run as it is."""
    from tokenwire.cli.connection import Connection
    from tokenwire.cli.printing import output_for
    from tokenwire.cli.requests import cursor_of, delivery_of
    from tokenwire.cli.run_records import Named, attached

    cursor, delivery = cursor_of(after), delivery_of(buffer)
    output = output_for(as_json=as_json, quiet=quiet, raw=raw)
    with Connection(target, as_json=as_json, retries=retries) as connection:
        attached(connection, Named(name, by_request=by_request), cursor, delivery, timeout, output).read()
