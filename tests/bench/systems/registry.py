"""All systems that can be measured."""

import re
from collections.abc import Sequence
from importlib.util import find_spec

from bench.system import System
from bench.systems.prototypes import PROTOTYPES
from bench.systems.tokenwire import SETTINGS

_PEERS = "bench.systems.peers"


def all_systems() -> Sequence[System]:
    """Returns tokenwire's settings, the gateways written for the comparison, and other people's."""
    return (*SETTINGS, *PROTOTYPES, *_peers())


def slug(name: str) -> str:
    """Returns a system's name as a command line takes it: "tokenwire-file-journal" of "tokenwire, file journal"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _peers() -> Sequence[System]:
    if find_spec(_PEERS) is None:
        return ()
    from bench.systems.peers import PEERS

    return PEERS
