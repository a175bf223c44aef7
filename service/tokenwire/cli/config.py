"""`tokenwire config`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tokenwire.cli.options import Json

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@commands.callback()
def _config() -> None:
    """Shows the settings of `serve`."""


@commands.command()
def show(
    file: Annotated[
        Path | None, typer.Option("--config", help="The TOML file to read.", show_default="./tokenwire.toml")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shows each setting, its value and where that comes from; secrets are hidden."""
    from tokenwire.cli.loaded import load
    from tokenwire.cli.tables import print_rows

    rows = load({"config": file}).rows()
    if as_json:
        for row in rows:
            print(json.dumps(row._asdict(), ensure_ascii=False))
    else:
        print_rows(("setting", "value", "source"), rows)
