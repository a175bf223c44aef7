"""`tokenwire version` and `tokenwire --version`."""

import json
import platform
from typing import Annotated

import typer

from tokenwire import __version__
from tokenwire.cli.failure import Finished
from tokenwire.cli.options import Json


def version(as_json: Json = False) -> None:
    """Shows the version of this program."""
    if as_json:
        print(json.dumps({"version": __version__, "python": platform.python_version()}))
    else:
        print(f"tokenwire {__version__}")


def _show(asked: bool) -> None:
    if asked:
        version()
        raise Finished(0)


AsFlag = Annotated[
    bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version of this program.")
]
