"""Whether two requests ask for the same run."""

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

import msgspec

from tokenwire.domain.request import Submission


def fingerprint(submission: Submission) -> bytes:
    """Returns the SHA-256 of what a request asks for; where its reader stands is no part of it.

    Only what was set counts, in one order, so that servers of different versions and requests from different languages
    agree.
    """
    asked = _bare(submission)
    asked.pop("after", None)
    asked.pop("fingerprint", None)
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()


def _bare(value: Any) -> dict[str, Any]:
    """A dataclass as its fields that differ from their defaults."""
    return {one.name: _plain(inner) for one in fields(value) if (inner := getattr(value, one.name)) != _default(one)}


def _default(one: "Field[Any]") -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return one.default


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _bare(value)
    if isinstance(value, Enum):
        # Of a mode and a name, both of which say how tools are chosen, the type must tell which it is.
        return [type(value).__name__, value.value]
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
