"""Streams that are told where their bytes arrive, against a server that sends what the test says."""

import asyncio
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.domain.errors import EngineError
from tokenwire.engines.exchange import LARGE_READ_BYTES
from tokenwire.engines.exchange import Exchange as Asked
from tokenwire.engines.framing import EVENTS
from tokenwire.engines.upstream import Upstream
from unit.engines.scripted_http import LAST_CHUNK, STREAM_HEAD, Exchange, always, chunk, serving

BODY: dict[str, Any] = {"prompt": "hi"}


class EnoughError(Exception):
    pass


async def told(upstream: Upstream, **options: Any) -> list[bytes]:
    payloads: list[bytes] = []

    def read(read: list[bytes]) -> bool:
        payloads.extend(read)
        return read[-1] == b"[DONE]"

    await upstream.tell("/x", BODY, read, **options)
    return payloads


async def hanging(exchange: Exchange) -> None:
    await exchange.write(STREAM_HEAD + chunk(b"data: a\n\n"))
    await exchange.hung_up()


@pytest.mark.asyncio
async def test_what_the_reader_raises_is_raised_and_the_connection_is_closed() -> None:
    def read(payloads: list[bytes]) -> bool:
        raise EnoughError

    async with serving(hanging) as server:
        upstream = Upstream(server.url)
        with pytest.raises(EnoughError):
            await upstream.tell("/x", BODY, read)
        await server.until_open(0)
        await upstream.close()


class Turns:
    """A transport that notes when it is to read."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.noted.append("pause")

    def resume_reading(self) -> None:
        self.noted.append("resume")


@pytest.mark.asyncio
async def test_others_have_a_turn_after_a_read_that_is_as_large_as_they_come() -> None:
    line = Asked(lambda: 0.0, lambda one: None)
    transport = Turns()
    line.connection_made(transport)  # type: ignore[arg-type]
    line.ask(b"", EVENTS, lambda payloads: False)
    line.data_received(STREAM_HEAD + chunk(b"data: a\n\n" * 100))
    assert transport.noted == []
    line.data_received(chunk(b"data: a\n\n" * (LARGE_READ_BYTES // 9)))
    assert transport.noted == ["pause"]
    await asyncio.sleep(0)
    assert transport.noted == ["pause", "resume"]
    line.release()
    line.connection_lost(None)


@pytest.mark.asyncio
async def test_a_whole_answer_ends_the_exchange_though_the_server_goes_on() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(STREAM_HEAD + chunk(b"data: a\n\ndata: [DONE]\n\n"))
        await exchange.hung_up()

    async with serving(script) as server:
        upstream = Upstream(server.url)
        assert await told(upstream) == [b"a", b"[DONE]"]
        # The connection has waited for the end of the reply.
        await upstream.close()
        await server.until_open(0)


@pytest.mark.asyncio
async def test_a_cancelled_exchange_closes_its_connection() -> None:
    heard = asyncio.Event()

    def read(payloads: list[bytes]) -> bool:
        heard.set()
        return False

    async with serving(hanging) as server:
        upstream = Upstream(server.url)
        work = asyncio.create_task(upstream.tell("/x", BODY, read))
        await heard.wait()
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()
        await server.until_open(0)
        await upstream.close()


@pytest.mark.asyncio
async def test_headers_go_with_the_request() -> None:
    async with serving(always(STREAM_HEAD + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)) as server:
        upstream = Upstream(server.url)
        await told(upstream, headers={"traceparent": "00-1-2-01"})
        assert server.requests[0].headers["traceparent"] == "00-1-2-01"
        assert server.requests[0].json == BODY
        await upstream.close()


@pytest.mark.asyncio
async def test_a_reply_that_only_says_that_there_will_be_one_is_none() -> None:
    continued = b"HTTP/1.1 100 Continue\r\ncontent-type: text/html\r\n\r\n"
    async with serving(always(continued + STREAM_HEAD + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)) as server:
        upstream = Upstream(server.url)
        assert await told(upstream) == [b"[DONE]"]
        await upstream.close()


@pytest.mark.asyncio
async def test_a_reply_without_a_length_ends_with_its_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: a\n\n")
        exchange.writer.close()

    async with serving(script) as server:
        upstream = Upstream(server.url)
        assert await told(upstream) == [b"a"]
        await upstream.close()


class Sent:
    """A transport that keeps what was written, and what became of it."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


@given(cuts=st.lists(st.integers(0, 200), max_size=8))
@settings(deadline=None)
def test_bytes_that_come_in_any_cut_say_the_same(cuts: list[int]) -> None:
    async def read_in_pieces() -> list[bytes]:
        told: list[bytes] = []

        def read(payloads: list[bytes]) -> bool:
            told.extend(payloads)
            return False

        whole = STREAM_HEAD + chunk(b"data: a\n\n") + chunk(b"data: b\n\n") + LAST_CHUNK
        exchange = Asked(lambda: 0.0, lambda one: None)
        exchange.connection_made(Sent())  # type: ignore[arg-type]
        done = exchange.ask(b"", EVENTS, read)
        places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
        for begin, end in pairwise(places):
            exchange.data_received(whole[begin:end])
        await done
        assert exchange.ready
        return told

    assert asyncio.run(read_in_pieces()) == [b"a", b"b"]


def certificate(folder: Path) -> Path:
    """Writes a certificate of its own for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.mark.asyncio
@pytest.mark.parametrize("trusted", [False, True])
async def test_an_engine_behind_tls_is_asked_only_if_its_certificate_is_trusted(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)

    accepted = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"}")
                writer.write(STREAM_HEAD + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    upstream = Upstream(f"https://localhost:{server.sockets[0].getsockname()[1]}")
    try:
        if trusted:
            assert [await told(upstream) for _ in range(3)] == [[b"[DONE]"]] * 3
            assert accepted == 1
        else:
            with pytest.raises(EngineError) as caught:
                await told(upstream)
            assert caught.value.reason == "ENGINE_UNREACHABLE"
    finally:
        await upstream.close()
        server.close()
        await server.wait_closed()
