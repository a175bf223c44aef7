"""All commands, and how they end."""

import json
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tokenwire.cli import batch, chat, config, demo, generate, health, models, runs, version
from tokenwire.cli.failure import USAGE, CommandError, Finished
from tokenwire.cli.terminal import plain

_TYPER_USAGE = 2


class Commands(TyperGroup):
    """The commands. The options of `serve` are those of the settings, and made only when it is called for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        if name == "serve":
            from tokenwire.cli.serve import serve_command

            command = serve_command()
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Runs the command. A reader that has left, such as `head`, is no error."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still in the buffer would fail once more when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise Finished(0) from None
        return result


application = typer.Typer(
    cls=Commands,
    name="tokenwire",
    help="Streams answers of LLMs over gRPC.",
    epilog="Exit codes: 0 success, 1 wrong usage or setting, 2 error of the server or the connection, 3 failed "
    "requests of a batch, 130 Ctrl-C.",
    no_args_is_help=True,
    # Plain text suits grep, and needs no import of rich.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _configure_grpc(verbosity: str) -> None:
    # gRPC's C core reads it when it is loaded, which is later. Its lines tell people nothing, and are no JSON.
    os.putenv("GRPC_VERBOSITY", verbosity)


GrpcVerbosity = Annotated[
    str,
    typer.Option("--grpc-verbosity", envvar="GRPC_VERBOSITY", hidden=True, callback=_configure_grpc, is_eager=True),
]


@application.callback()
def _application(version_asked: version.AsFlag = False, grpc_verbosity: GrpcVerbosity = "NONE") -> None:
    """Streams answers of LLMs over gRPC."""


@application.command()
def serve() -> None:
    """Runs a service until Ctrl-C or SIGTERM."""
    raise AssertionError("resolve_command puts the command with all options in its place")


application.command()(demo.demo)
application.command()(generate.generate)
application.command()(chat.chat)
application.command()(batch.batch)
application.command()(models.models)
application.add_typer(runs.commands, name="runs", help="Lists, shows, follows and cancels runs.")
application.command()(health.health)
application.add_typer(config.commands, name="config", help="Shows the settings of `serve`.")
application.command()(version.version)


def run() -> int:
    """Runs the command that the process's arguments name, and returns its exit code."""
    try:
        application(prog_name="tokenwire")
    except Finished as finished:
        return finished.exit_code
    except CommandError as failure:
        _tell(failure)
        return failure.exit_code
    except SystemExit as end:
        return USAGE if end.code == _TYPER_USAGE else int(end.code or 0)
    return 0


def _tell(failure: CommandError) -> None:
    report = failure.report
    try:
        if failure.as_json:
            print(json.dumps({"error": report.as_json()}, ensure_ascii=False), flush=True)
        else:
            print(f"tokenwire: {plain(report.line())}", file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
