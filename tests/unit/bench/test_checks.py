"""What is read of the load programs of others, and how it is compared with our client's count."""

import json
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from bench import checks
from bench.checks import AbsentError, Count, compared, descriptors, ghz_calls, ghz_received, h2load_calls
from tokenwire.v1 import generate_service_pb2
from unit.bench.measured import tally

H2LOAD = """finished in 405.78ms, 49.29 req/s, 45.39KB/s
requests: 20 total, 20 started, 20 done, {} succeeded, {} failed, 0 errored, 0 timeout
status codes: 20 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 18.42KB (18860) total, 210B (210) headers (space savings 87.04%), 13.83KB (14160) data
                     min         max         mean         sd        +/- sd
"""


def line(response: str | None, message: str = "Receive message") -> str:
    return json.dumps({"level": "debug", "message": message, "response": response}, separators=(",", ":"))


def test_of_ghz_the_texts_that_it_received_are_counted_and_no_other_digits() -> None:
    log = [
        line('start:<run_id:"0000000000000000"> cursor:<seq:1>'),
        line('delta:<text:"00000345255587650000034525558766" token_count:2> cursor:<seq:2>'),
        line('delta:<choice:1 text:"0000034525559747" byte_offset:16 token_count:1> cursor:<seq:3>'),
        line('end:<channels:<sha256:"01234567890123456789"> > cursor:<seq:4>'),
        line(None),
        line("0000034525559747", "Received RPC Stats"),
    ]
    assert ghz_received("\n".join(log)) == (3, 4)
    assert ghz_calls('{"count": 5, "statusCodeDistribution": {"OK": 3, "Canceled": 2}}') == 3
    assert ghz_calls('{"statusCodeDistribution": {"Unavailable": 2}}') == 0


def test_h2load_counts_if_nothing_failed() -> None:
    assert h2load_calls(H2LOAD.format(20, 0)) == (20, 14160)
    assert h2load_calls(H2LOAD.format(19, 1)) == (0, 14160)
    with pytest.raises(AbsentError):
        h2load_calls("no host")


def test_a_count_agrees_if_it_is_that_of_our_client() -> None:
    calls = Count(what="calls", streams=9, counted=9, more={})
    tokens = Count(what="tokens", streams=9, counted=18, more={"messages": 3})
    assert compared(tally(done=9, tokens=18), calls) == {"counts": "calls", "expected": 9, "counted": 9, "agree": True}
    assert not compared(tally(done=8, tokens=18), calls)["agree"]
    assert compared(tally(done=9, tokens=18), tokens)["agree"]
    assert compared(tally(done=9, tokens=18), tokens)["messages"] == 3
    assert not compared(tally(done=9, tokens=19), tokens)["agree"]


@pytest.mark.parametrize(("data_bytes", "agree"), [(288, True), (287, False)])
def test_answers_that_are_too_short_for_their_tokens_do_not_agree(data_bytes: int, agree: bool) -> None:
    calls = Count(what="calls", streams=9, counted=9, more={"data_bytes": data_bytes})
    assert compared(tally(done=9, tokens=18), calls)["agree"] is agree


def test_descriptors_come_with_all_that_they_import() -> None:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptors(generate_service_pb2.DESCRIPTOR)).file:
        pool.Add(file)
    methods = pool.FindServiceByName("tokenwire.v1.GenerateService").methods_by_name
    assert methods["StreamGenerate"].output_type.full_name == "tokenwire.v1.Event"


def test_a_program_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AbsentError, match="go"):
        checks._ghz(tmp_path)
    with pytest.raises(AbsentError, match="h2load"):
        checks._h2load(tmp_path)
