"""The TOKENWIRE_* variables."""

import json
import os
import re
from collections.abc import Mapping

from tokenwire.settings.names import CONFIG, PREFIX, variable_name
from tokenwire.settings.problems import Given, unknown

# Read by the command line as a client: the address of the service to call, and no setting of one.
TARGET = f"{PREFIX}TARGET"

# Kubernetes sets such variables in each pod beside a Service called tokenwire or tokenwire-something.
_SERVICE_LINK = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT|_PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)")


def environment() -> dict[str, str]:
    """Returns the variables of this process: the one place that reads them."""
    return dict(os.environ)


def read_variables(environ: Mapping[str, str], names: list[str]) -> tuple[dict[str, Given], list[str]]:
    """Returns the settings that variables give, and what is wrong with the names; an empty variable counts as unset."""
    settings = {variable_name(name): name for name in names}
    known = [*settings, variable_name(CONFIG), TARGET]
    given: dict[str, Given] = {}
    problems = []
    for variable, text in environ.items():
        name = settings.get(variable)
        if name and text:
            given[name] = Given(_engines(text) if name == "engines" else text, variable)
        elif variable.startswith(PREFIX) and variable not in known:
            problems.append(f"{variable}: {_unknown(variable, known)}")
    return given, sorted(problems)


def _engines(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # The model refuses a text, and says what it wants.
        return text


def _unknown(variable: str, known: list[str]) -> str:
    if _SERVICE_LINK.fullmatch(variable):
        return "no such setting; it looks like one of Kubernetes: set enableServiceLinks: false in the pod"
    return unknown(variable, known, prefix=PREFIX)
