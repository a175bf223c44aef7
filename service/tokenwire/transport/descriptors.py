"""File descriptors: how many the process may have, and who may use them (docs/decisions/0016).

Where there are none left, nothing fails clearly: gRPC's core tries once a second to take the next connection, whose
client waits, and a connection to an engine fails as if the engine were down.
"""

import resource
from dataclasses import dataclass

# What a server asks for at most, and more than it can use. Engines ask for as many.
MOST = 65_536
# For what is there beside streams: the journal's files or its connections, checks of engines, children, pollers.
SPARE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many streams, each with a connection to an engine, and how many connections of clients there may be."""

    streams: int
    connections: int


def obtainable() -> int:
    """Returns how many file descriptors the process can have, once `take` has been called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(soft, MOST if hard == resource.RLIM_INFINITY else min(hard, MOST))


def take() -> None:
    """Raises the process's soft limit to what is obtainable: the usual 1024 are for programs that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = obtainable()
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def shares(streams_max: int, descriptors: int) -> Shares:
    """Divides file descriptors so that each stream can have a client's connection of its own, and one to an engine.

    Args:
        streams_max: how many streams are wanted; 0: as many as there can be.
        descriptors: how many file descriptors there are.
    """
    usable = max(descriptors - SPARE, 2)
    streams = min(streams_max or usable, usable // 2)
    # What is left goes to clients and engines alike: runs of batches and those without a reader have connections too.
    return Shares(streams=streams, connections=max(streams, (usable - streams) // 2))
