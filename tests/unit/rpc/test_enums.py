"""The numbers of the domain's enums are those of the contract, and of gRPC."""

from enum import IntEnum
from typing import Any

import grpc
import pytest

from tokenwire.domain.cursor import ChannelKind
from tokenwire.domain.errors import Code
from tokenwire.domain.events import Continuation, DetachReason, FinishReason, Phase
from tokenwire.domain.request import BufferingMode, FailoverPolicy, ReasoningEffort, Role, SamplingPreset, ToolMode
from tokenwire.engines.status import EngineState
from tokenwire.engines.support import Support
from tokenwire.rpc.methods import reflection_pool
from tokenwire.v1 import (
    cursor_pb2,
    delivery_pb2,
    event_pb2,
    finish_pb2,
    message_pb2,
    model_pb2,
    run_pb2,
    run_service_pb2,
    sampling_pb2,
)

PAIRS: list[tuple[type[IntEnum], Any, str]] = [
    (ChannelKind, cursor_pb2.ChannelKind, "CHANNEL_KIND"),
    (BufferingMode, delivery_pb2.BufferingMode, "BUFFERING_MODE"),
    (Continuation, event_pb2.Continuation, "CONTINUATION"),
    (DetachReason, event_pb2.DetachReason, "DETACH_REASON"),
    (Phase, event_pb2.Phase, "PHASE"),
    (FinishReason, finish_pb2.FinishReason, "FINISH_REASON"),
    (Code, finish_pb2.StatusCode, "STATUS_CODE"),
    (ReasoningEffort, message_pb2.ReasoningEffort, "REASONING_EFFORT"),
    (ToolMode, message_pb2.ToolMode, "TOOL_MODE"),
    (EngineState, model_pb2.ModelState, "MODEL_STATE"),
    (Support, model_pb2.Support, "SUPPORT"),
    (FailoverPolicy, run_pb2.FailoverPolicy, "FAILOVER_POLICY"),
    (SamplingPreset, sampling_pb2.SamplingPreset, "SAMPLING_PRESET"),
]
# The codec writes these by hand.
BY_HAND = {"Role", "RunState"}


@pytest.mark.parametrize(("ours", "theirs", "prefix"), PAIRS, ids=lambda value: getattr(value, "__name__", None))
def test_names_and_numbers_are_the_contract_s(ours: type[IntEnum], theirs: Any, prefix: str) -> None:
    contract = {name.removeprefix(f"{prefix}_"): number for name, number in theirs.items() if number}
    assert {member.name: int(member) for member in ours if member} == contract


def test_no_enum_is_left_out() -> None:
    pool, known = reflection_pool(), BY_HAND | {theirs.DESCRIPTOR.name for _, theirs, _ in PAIRS}
    names = set()
    file_names = {one.DESCRIPTOR.file.name for _, one, _ in PAIRS} | {run_service_pb2.DESCRIPTOR.name}
    for name in file_names:
        names |= set(pool.FindFileByName(name).enum_types_by_name)
    assert names == known


def test_every_role_of_the_contract_is_one_of_ours() -> None:
    roles = {name.removeprefix("ROLE_") for name, number in message_pb2.Role.items() if number}
    assert roles == {role.name for role in Role}


def test_codes_are_grpc_s() -> None:
    assert {code.name: int(code) for code in Code} == {code.name: code.value[0] for code in grpc.StatusCode}
