"""Whether two requests ask for the same run."""

import hashlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

import msgspec

from tokenwire.domain.request import Submission
from tokenwire.domain.set_fields import set_fields


def fingerprint(submission: Submission) -> bytes:
    """Returns the SHA-256 of what a request asks for; where its reader stands is no part of it.

    Only what was set counts, in one order, so that servers of different versions and requests from different languages
    agree.
    """
    asked = {name: _plain(inner) for name, inner in set_fields(submission) if name not in ("after", "fingerprint")}
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {name: _plain(inner) for name, inner in set_fields(value)}
    if isinstance(value, Enum):
        # Of a mode and a name, both of which say how tools are chosen, the type must tell which it is.
        return [type(value).__name__, value.value]
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
