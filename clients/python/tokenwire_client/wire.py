"""What both fronts say to grpc."""

from collections.abc import Sequence
from typing import Any

import grpc

from tokenwire_client.core import details
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure
from tokenwire_client.core.policy import Policy

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
_KEEPALIVE_SECONDS, _PING_TIMEOUT_SECONDS = 20.0, 10.0
# A connection is known to be dead before a stream on it is called silent, so that the next call makes another one.
_KEEPALIVE_SHARE, _PING_TIMEOUT_SHARE = 0.55, 0.3

ChannelOptions = Sequence[tuple[str, int | str]]


def channel_options(policy: Policy) -> list[tuple[str, int | str]]:
    """Returns the options of a channel."""
    keepalive_ms = round(1000 * min(_KEEPALIVE_SECONDS, max(_KEEPALIVE_SHARE * policy.silence, 1.0)))
    ping_timeout_ms = round(1000 * min(_PING_TIMEOUT_SECONDS, max(_PING_TIMEOUT_SHARE * policy.silence, 0.5)))
    return [
        ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        # The bound that counts; a minute by default.
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        # Nothing is written during a long answer.
        ("grpc.http2.max_pings_without_data", 0),
        # The waits are ours; by default a channel would not even try for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", max(round(policy.first_wait * 1000), 50)),
        ("grpc.max_reconnect_backoff_ms", max(round(policy.longest_wait * 1000 / 2), 100)),
        # Despite its name the time that one attempt to connect has.
        ("grpc.min_reconnect_backoff_ms", 5000),
    ]


def failure_of(error: grpc.RpcError) -> Failure:
    """Returns what a call ended with."""
    # Every error of a call has these; the class itself does not say so.
    status: Any = error
    code: grpc.StatusCode = status.code()
    data = next((value for key, value in status.trailing_metadata() or () if key == details.KEY), None)
    return details.read(Code[code.name], status.details() or "", data if isinstance(data, bytes) else None)
