"""Ports for gateways and engines, chosen where no outgoing connection takes them."""

import socket
from pathlib import Path
from random import Random

# Outgoing connections take their ports from above here, thousands of them in a benchmark.
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15_000
_LISTEN = "0A"


class Ports:
    """Gives each port once.

    Args:
        rng: chooses them, so that two benchmarks on one machine seldom meet.
    """

    def __init__(self, rng: Random) -> None:
        self._given: set[int] = set()
        self._rng = rng

    def take(self) -> int:
        """Returns a port that nobody listens on. Raises RuntimeError if there is none."""
        for _ in range(1000):
            port = self._rng.randrange(_LOWEST, first_outgoing_port())
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise RuntimeError("no port is free")


def first_outgoing_port() -> int:
    """Returns the lowest port that the system gives to outgoing connections."""
    try:
        return max(_LOWEST + 1000, int(_RANGE.read_text().split()[0]))
    except OSError:
        return 32_768


def is_free(port: int) -> bool:
    """Tells whether a server could listen on the port on every address of this machine."""
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError:
            return False
    return True


def listening(port: int) -> set[int]:
    """Returns the inodes of the sockets that listen on the port, over IPv4 and IPv6."""
    return {inode for state, local, inode in _sockets() if state == _LISTEN and local == port}


def _sockets() -> list[tuple[str, int, int]]:
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            words = line.split()
            found.append((words[3], int(words[1].rpartition(":")[2], 16), int(words[9])))
    return found
