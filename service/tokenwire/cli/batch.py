"""`tokenwire batch`."""

from pathlib import Path
from typing import Annotated

import typer

from tokenwire.cli.failure import USAGE, CommandError, Finished
from tokenwire.cli.options import DEFAULT_TARGET, Json, Target

# Beside those of all commands.
ITEMS_FAILED = 3


def batch(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl",
            help='One request a line, such as {"id": "a", "prompt": "hi"} or {"id": "b", "messages": [{"content": '
            '"hi"}]}, with any further field of GenerateRequest or ChatRequest; without an id: the line\'s number. '
            "- takes standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT.jsonl",
            help="Append the results to this file, one a line as they come; what it has already is not asked again. "
            "Without it: standard output.",
        ),
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", min=1, max=1024, help="So many at a time; the server may allow fewer.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model of lines that name none; the server's default if not given.")
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again for what has failed according to the file of --out.")
    ] = False,
    target: Target = DEFAULT_TARGET,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary.")] = False,
) -> None:
    """Answers a file of requests. A broken line is taken up again; Ctrl-C and the same command go on later.

    A result is {"id", "run_id", "text", "finish_reason", "usage"}, with "choices" instead of the text if there are
    several, or {"id", "error"}. Exits with 3 if a request failed; the others are answered all the same. --json prints
    the server's events.
    """
    from tokenwire.cli.batch_lines import Lines
    from tokenwire.cli.batch_progress import BatchProgress
    from tokenwire.cli.batch_results import Results
    from tokenwire.cli.batch_session import Session
    from tokenwire.cli.connection import Connection

    if out is not None and file != "-" and out.exists() and Path(file).exists() and out.samefile(file):
        raise CommandError("FILE.jsonl and the file of --out are the same", exit_code=USAGE)
    with (
        Results(out, as_json=as_json, retry_failed=retry_failed) as results,
        Lines(file, model=model, skips=results.skips) as lines,
        Connection(target, as_json=as_json) as connection,
        BatchProgress(lines.total, quiet=quiet or as_json, beside_results=out is None) as progress,
    ):
        session = Session(connection, lines, results, progress, in_flight=in_flight)
        again = f"tokenwire batch {file} -o {out}" if out is not None and file != "-" else ""
        session.run(again=again)
    if results.failed:
        raise Finished(ITEMS_FAILED)
