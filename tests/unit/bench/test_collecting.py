"""Collectors for spans and metrics."""

import asyncio
import itertools
import json
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.collecting import collecting, counted
from bench.collector import Collector, Counts
from bench.ports import Ports


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def connected() -> tuple[Collector, Transport, Counts]:
    counts = Counts({}, {})
    collector, transport = Collector(counts), Transport()
    collector.connection_made(transport)
    return collector, transport, counts


def post(kind: str, body: bytes) -> bytes:
    return f"POST /v1/{kind} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@given(
    bodies=st.lists(st.tuples(st.sampled_from(["traces", "metrics"]), st.binary(max_size=200)), max_size=5),
    cuts=st.lists(st.integers(0, 2000)),
)
def test_exports_are_counted_however_they_are_cut(bodies: list[tuple[str, bytes]], cuts: list[int]) -> None:
    collector, transport, counts = connected()
    data = b"".join(post(kind, body) for kind, body in bodies)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        collector.data_received(data[start:end])
    assert sum(counts.requests.values()) == len(bodies)
    assert sum(counts.body_bytes.values()) == sum(len(body) for _, body in bodies)
    assert transport.written.count(b"HTTP/1.1 200 OK\r\n") == len(bodies)


def test_counts_are_told() -> None:
    collector, transport, _ = connected()
    collector.data_received(post("traces", b"12345") + post("metrics", b"1") + b"GET /counts HTTP/1.1\r\n\r\n")
    told = transport.written.rpartition(b"\r\n\r\n")[2].decode()
    assert json.loads(told) == {"requests": {"traces": 1, "metrics": 1}, "bytes": {"traces": 5, "metrics": 1}}
    assert counted(told) == 2


def test_what_is_no_export_is_not_counted() -> None:
    collector, transport, counts = connected()
    collector.data_received(b"POST /v2/traces HTTP/1.1\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 501 ")
    assert not counts.requests


def test_a_head_without_an_end_is_cut_off() -> None:
    collector, transport, _ = connected()
    collector.data_received(b"x" * 70_000)
    assert transport.closed


def test_what_a_real_collector_has_accepted_is_read() -> None:
    metrics = (
        "# TYPE otelcol_receiver_accepted_spans counter\n"
        'otelcol_receiver_accepted_spans{receiver="otlp",transport="http"} 12\n'
        'otelcol_receiver_accepted_metric_points_total{receiver="otlp",transport="http"} 1.5e+02\n'
        'otelcol_receiver_refused_spans{receiver="otlp",transport="http"} 7\n'
    )
    assert counted(metrics) == 162
    assert counted("# nothing yet\n") == 0


def test_our_own_collector_takes_the_place_of_one_that_is_not_built(tmp_path: Path) -> None:
    with collecting(Ports(Random()), tmp_path, program=tmp_path / "otelcol") as sink:
        assert sink.received() == 0
        connection = HTTPConnection(sink.url.removeprefix("http://"), timeout=10)
        connection.request("POST", "/v1/traces", body=b"spans")
        assert connection.getresponse().status == 200
        connection.close()
        assert sink.received() == 1
    assert sink.received() == 0


def test_a_collector_that_does_not_start_is_told(tmp_path: Path) -> None:
    program = tmp_path / "otelcol"
    program.write_text("#!/bin/sh\necho 'no such receiver' >&2\nexit 3\n")
    program.chmod(0o755)
    with (
        pytest.raises(RuntimeError, match="collector ended with code 3 no such receiver"),
        collecting(Ports(Random()), tmp_path, program=program),
    ):
        pass
