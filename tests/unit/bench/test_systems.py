"""How tokenwire and the gateways written for the comparison are started."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.goals import FILE_JOURNAL, REDIS_JOURNAL, TELEMETRY_OFF, TOKENWIRE
from bench.rows import CHAT, GENERATE
from bench.system import Launch, Stage, System
from bench.systems.prototypes import PROTOTYPES
from bench.systems.registry import all_systems, slug
from bench.systems.tokenwire import SETTINGS
from harness.redis_server import find_server
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.generate_service_pb2 import GenerateRequest


def system(name: str) -> System:
    return next(one for one in all_systems() if one.name == name)


def launch(name: str) -> Launch:
    stage = Stage(port=15001, engine_port=15002, folder=Path("/somewhere"), collector_url="http://127.0.0.1:15003")
    return system(name).launch(stage)


def test_with_everything_on_spans_and_metrics_go_to_the_collector() -> None:
    everything = launch(TOKENWIRE)
    assert everything.observed
    assert everything.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:15003"
    assert "--admin-listen" in everything.command


def test_with_telemetry_off_nothing_else_is_different() -> None:
    everything, off = launch(TOKENWIRE), launch(TELEMETRY_OFF)
    assert not off.observed
    assert not [name for name in off.environment if name.startswith("OTEL_")]
    assert everything.command[: len(off.command)] == off.command
    assert {word for word in everything.command[len(off.command) :] if word.startswith("--")} == {
        "--otel-endpoint",
        "--admin-listen",
    }


def test_journals_are_rows_of_their_own_with_everything_on() -> None:
    file = launch(FILE_JOURNAL)
    assert "file:/somewhere/journal" in file.command
    assert file.observed
    assert not file.companions


@pytest.mark.skipif(find_server() is None, reason="no Redis and no Valkey is installed")
def test_the_redis_journal_has_a_server_beside_it() -> None:
    redis = launch(REDIS_JOURNAL)
    (server,) = redis.companions
    assert f"unix://{server.socket}" in redis.command
    assert str(server.socket) in server.command


@pytest.mark.parametrize(("name", "kind"), [(TOKENWIRE, "vllm"), (CHAT, "vllm"), (GENERATE, "sglang")])
def test_each_dialect_has_its_kind_of_engine(name: str, kind: str) -> None:
    assert f"bench:{kind}=http://127.0.0.1:15002" in launch(name).command


def test_requests_ask_for_so_many_tokens() -> None:
    assert GenerateRequest.FromString(system(TOKENWIRE).request(77)).stopping.max_tokens == 77
    assert ChatRequest.FromString(system(CHAT).request(77)).stopping.max_tokens == 77
    assert system(CHAT).path != system(TOKENWIRE).path


def test_prototypes_can_be_run_and_tell_what_they_are_made_of() -> None:
    for one in PROTOTYPES:
        stage = Stage(port=1, engine_port=2, folder=Path("/somewhere"), collector_url="")
        *_, module, port, engine_port = one.launch(stage).command
        assert find_spec(module) is not None
        assert (port, engine_port) == ("1", "2")
        assert "grpcio 1." in one.version()
        assert not one.absent()


def test_systems_can_be_named_on_a_command_line() -> None:
    slugs = [slug(one.name) for one in all_systems()]
    assert len(slugs) == len(set(slugs))
    assert not [one for one in slugs if "," in one or " " in one]
    assert slug(FILE_JOURNAL) == "tokenwire-file-journal"
    assert {one.name for one in SETTINGS} >= {TOKENWIRE, FILE_JOURNAL, REDIS_JOURNAL, TELEMETRY_OFF}
