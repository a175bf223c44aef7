"""`tokenwire serve`."""

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
import uvloop

from tokenwire import __version__
from tokenwire.admin.error import AdminError
from tokenwire.app import App, build
from tokenwire.cli.exporting import plan
from tokenwire.cli.failure import SERVER, USAGE, CommandError, Report
from tokenwire.cli.fetching import Fetching
from tokenwire.cli.loaded import load
from tokenwire.cli.signature import as_command
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import EngineState
from tokenwire.journal.journal import JournalError
from tokenwire.server import run
from tokenwire.settings import SettingOption, Settings, options, split_listen
from tokenwire.telemetry.logs import configure_logs
from tokenwire.telemetry.plan import TelemetryError
from tokenwire.telemetry.providers import Providers, exporting

BUNDLED_MODEL = "The bundled model has 135 million parameters: good for trying the stream, not for knowledge."


def serve_command() -> Any:
    """Makes the command, with an option for each setting."""
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    holder.command("serve")(as_command(serve, "serve", serve.__doc__, list(_parameters())))
    return typer.main.get_command(holder)


def serve(**flags: object) -> None:
    """Runs a service until Ctrl-C or SIGTERM, then lets its runs end; a second signal stops at once.

    A setting is taken from its flag, else from its variable, else from the TOML file.
    """
    settings = load(flags)
    configure_logs(level=settings.log_level, log_format=settings.log_format)
    with (
        _exporting(settings) as providers,
        Fetching() as fetching,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(_serve(settings, fetching, providers))
        except AdminError as error:
            hint = "Choose another address with --admin-listen, or port 0 for a free one."
            raise CommandError(Report(message=f"admin port: {error}", hint=hint), exit_code=SERVER) from error
        except OSError as error:
            hint = "Is it taken by another process, or not an address of this machine? Choose another with --listen."
            raise CommandError(Report(message=str(error), hint=hint), exit_code=SERVER) from error


@contextmanager
def _exporting(settings: Settings) -> Iterator[Providers]:
    try:
        with exporting(plan(settings), __version__) as providers:
            yield providers
    except TelemetryError as error:
        raise CommandError(str(error), exit_code=USAGE) from error


async def _serve(settings: Settings, fetching: Fetching, providers: Providers) -> None:
    scrape = providers.scrape.text if providers.scrape else None
    try:
        app = build(settings, on_progress=fetching.progress, scrape=scrape)
    except (ValueError, JournalError) as error:
        # Such as a model file that is none.
        raise CommandError(str(error), exit_code=USAGE) from error
    try:
        await run(app, lambda port: _announce(app, port))
    except JournalError as error:
        raise CommandError(f"journal: {error}", exit_code=SERVER) from error


def _announce(app: App, port: int) -> None:
    host, _ = split_listen(app.settings.listen)
    lines = [f"tokenwire {__version__} serves on {_shown(host, port)}"]
    for engine in app.fleet.engines:
        models = ", ".join(model.name for model in engine.status.models) or "models not known yet"
        lines.append(f"engine {engine.name} ({engine.kind}): {models}, {engine.status.state.name.lower()}")
        _tell_when_ready(engine)
    if not app.settings.model_path and any(engine.kind == "llamacpp" for engine in app.fleet.engines):
        lines.append(BUNDLED_MODEL)
    if app.admin is not None:
        lines.append(f"probes and metrics on {_shown(app.admin.host, app.admin.port)}")
    print("\n".join(lines), flush=True)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tell_when_ready(engine: Engine) -> None:
    told = engine.status.state

    def changed() -> None:
        nonlocal told
        state, before = engine.status.state, told
        told = state
        if state is not before and state is EngineState.READY:
            models = ", ".join(model.name for model in engine.status.models)
            print(f"engine {engine.name} is ready: {models}", flush=True)

    engine.status.watch(changed)


def _parameters() -> Iterator[inspect.Parameter]:
    for option in options():
        yield inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(option)
        )


def _annotation(option: SettingOption) -> Any:
    # Typer must not read the variable: the settings do, and know it as the source.
    text = f"{option.description} [variable {option.variable}; default: {option.default}]"
    names = [f"{option.flag}/--no-{option.flag[2:]}"] if option.value_type is bool else [option.flag]
    kind: Any = Literal[option.choices] if option.choices else option.value_type
    return Annotated[kind | None, typer.Option(*names, help=text, show_default=False)]
