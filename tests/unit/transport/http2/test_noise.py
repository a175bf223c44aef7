"""Good sessions, changed at random: whatever comes, a connection answers in frames or ends, and nothing is left."""

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

from harness.http2_in_memory import PREFACE, frames, in_memory, turns
from harness.raw_http2 import grpc_message
from harness.transports import BIDI, GATHER, STREAM, UNARY
from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import Call, Handler, Requests

CASES = 400


def session(rng: random.Random) -> list[bytes]:
    """Returns the frames of a client that does what clients do, the preface with the first of them."""
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: rng.choice([0, 100, 65_535])})
    for stream in range(1, 13, 2):
        path = rng.choice([UNARY, STREAM, GATHER, BIDI, "/nothing.Nothing/Nothing"])
        extra = rng.choice([[], [("grpc-timeout", rng.choice(["1n", "1S", "x"]))], [("grpc-encoding", "gzip")]])
        client.send_headers(
            stream,
            [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"), *extra],
            end_stream=rng.random() < 0.1,
        )
        if client.streams[stream].state_machine.state.name == "OPEN":
            body = grpc_message(bytes(rng.choice([0, 3, 200])), compressed=rng.random() < 0.1) * rng.choice([1, 1, 2])
            client.send_data(stream, body, end_stream=rng.random() < 0.7, pad_length=rng.choice([None, 7]))
        if rng.random() < 0.5:
            client.increment_flow_control_window(rng.choice([1, 100, 2**20]), rng.choice([None, stream]))
        if rng.random() < 0.2:
            client.reset_stream(stream, ErrorCodes.CANCEL)
        if rng.random() < 0.2:
            client.ping(bytes(8))
        if rng.random() < 0.2:
            client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: rng.choice([0, 1, 2**20])})
    if rng.random() < 0.2:
        client.close_connection()
    data, found = client.data_to_send()[len(PREFACE) :], []
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        found.append(data[:size])
        data = data[size:]
    return [PREFACE + found[0], *found[1:]]


def changed(sent: list[bytes], rng: random.Random) -> list[bytes]:
    """Changes some of the frames, or some of the bytes."""
    sent = list(sent)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(sent))
        frame = bytearray(sent[at])
        match rng.randrange(8):
            case 0:
                del sent[at]
                sent = sent or [b"\x00"]
            case 1:
                sent.insert(rng.randrange(len(sent)), sent[at])
            case 2:
                other = rng.randrange(len(sent))
                sent[at], sent[other] = sent[other], sent[at]
            case 3:
                # Its type, its flags or its stream.
                frame[min(len(frame) - 1, rng.choice([3, 4, 8]))] = rng.choice(
                    [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 0x2D, 255]
                )
                sent[at] = bytes(frame)
            case 4:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
                sent[at] = bytes(frame)
            case 5:
                sent[at] = bytes(frame[: rng.randrange(1, len(frame) + 1)])
            case 6:
                sent[at] = bytes(frame) + rng.randbytes(rng.randrange(1, 40))
            case 7:
                size = rng.randrange(20)
                kind = bytes([rng.randrange(12), rng.randrange(256)])
                sent.insert(
                    at, size.to_bytes(3, "big") + kind + bytes([0, 0, 0, rng.randrange(14)]) + rng.randbytes(size)
                )
    return sent


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """Cuts data into segments."""
    places = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 1, 5, 40])))})
    return [data[a:b] for a, b in pairwise(places)]


async def _echo(request: bytes, call: Call) -> bytes:
    if len(request) > 100:
        raise TokenwireError(Code.INVALID_ARGUMENT, "LONG", "it is too long")
    return request


async def _several(request: bytes, call: Call) -> None:
    for size in (0, 50, 20_000, 70_000):
        await call.write(bytes(size))
    if len(request) == 3:
        await asyncio.Event().wait()


async def _echoes(requests: Requests, call: Call) -> None:
    async for request in requests:
        await call.write(request)


async def _count(requests: Requests, call: Call) -> bytes:
    return str([len(request) async for request in requests]).encode()


HANDLERS: dict[str, Handler] = {UNARY: _echo, STREAM: _several, BIDI: _echoes, GATHER: _count}


async def play(sent: bytes, rng: random.Random) -> list[Frame]:
    """Lets a connection take it, with a socket that is full now and then, and returns its answers."""
    connection, transport, clients = in_memory(HANDLERS)
    for piece in pieces(sent, rng):
        if transport.reading:
            connection.data_received(piece)
        if rng.random() < 0.1:
            connection.pause_writing()
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if connection.paused:
            connection.resume_writing()
        if rng.random() < 0.01:
            connection.drain()
    connection.eof_received()
    connection.connection_lost(None)
    await turns(lambda: not clients.tasks)
    assert not clients.connections
    assert not connection.waiting
    return frames(transport.taken())


@pytest.mark.asyncio
async def test_good_sessions_get_their_answers() -> None:
    rng = random.Random(0)
    statuses = 0
    for _ in range(20):
        answers = await play(b"".join(session(rng)), rng)
        statuses += sum("END_STREAM" in frame.flags for frame in answers)
        assert not [frame for frame in answers if isinstance(frame, GoAwayFrame) and frame.error_code]
    # Those that are neither reset nor stuck.
    assert statuses > 20


@pytest.mark.asyncio
async def test_no_noise_does_more_than_end_its_connection() -> None:
    loop, errors = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    ended = 0
    for seed in range(CASES):
        rng = random.Random(seed)
        try:
            answers = await play(b"".join(changed(session(rng), rng)), rng)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert not errors, f"seed {seed}"
        ended += any(isinstance(frame, GoAwayFrame) for frame in answers)
    loop.set_exception_handler(None)
    # It is noise indeed, and not all of it.
    assert CASES / 10 < ended < CASES
