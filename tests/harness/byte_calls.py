"""Calls without stubs: bytes go out, bytes come back."""

from typing import Any

import grpc


def unary_call(channel: grpc.aio.Channel, method: str) -> Any:
    """Returns what makes a call with one request and one answer."""
    return channel.unary_unary(method)


def stream_call(channel: grpc.aio.Channel, method: str) -> Any:
    """Returns what makes a call with one request and a stream of answers."""
    return channel.unary_stream(method)


def bidi_call(channel: grpc.aio.Channel, method: str) -> Any:
    """Returns what makes a call with streams both ways."""
    return channel.stream_stream(method)
