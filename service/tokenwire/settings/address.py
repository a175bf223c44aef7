"""Addresses: where tokenwire listens, and where engines are."""

import ipaddress
import re
from urllib.parse import urlsplit

_LISTEN = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


def split_listen(text: str) -> tuple[str, int]:
    """Returns host and port of `host:port` or `[::1]:port`; raises ValueError for anything else."""
    match = _LISTEN.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError("not host:port")
    if match["six"]:
        return str(ipaddress.IPv6Address(match["six"])), int(match["port"])
    host = match["host"]
    # No name ends in a number, so this is a mistyped IPv4 address and would be looked up for nothing.
    if host.rsplit(".", 1)[-1].isdigit():
        ipaddress.IPv4Address(host)
    return host, int(match["port"])


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def checked_url(text: str) -> str:
    """Returns an http or https address without a trailing slash; raises ValueError for anything else.

    A user name, a query or a fragment may carry a secret, and addresses are shown: they are refused.
    """
    # urlsplit drops line breaks and tabs in silence.
    if any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("not an address")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an address")
    if parts.port == 0 or "?" in text or "#" in text:
        raise ValueError("not an address")
    return text.rstrip("/")


def ollama_url(text: str) -> str:
    """Returns the address that OLLAMA_HOST means: a host, host:port or URL, read as Ollama's own clients read it.

    Without a scheme the port is 11434 unless given; with one it is the scheme's. What makes no sense is left for
    `checked_url` to refuse.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    hostport, slash, path = rest.partition("/")
    if hostport.count(":") > 1 and not hostport.startswith("["):
        hostport = f"[{hostport}]"
    host, colon, port = hostport.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = hostport, "" if separator else "11434"
    # What a server listens on is not what a client can connect to.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
    return f"{scheme or 'http'}://{host}{':' if port else ''}{port}{slash}{path}"
