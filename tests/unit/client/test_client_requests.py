"""Requests by keyword."""

import math
from typing import Any

import pytest

from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.generate_service_pb2 import GenerateRequest, TokenIds
from tokenwire.v1.message_pb2 import ROLE_SYSTEM, ROLE_UNSPECIFIED, Message, Tool
from tokenwire.v1.run_pb2 import Limits
from tokenwire.v1.run_service_pb2 import AttachRunRequest
from tokenwire.v1.sampling_pb2 import Constraint, Sampling, Stopping
from tokenwire_client.core.options import CONSTRAINT, RUN, SAMPLING, STOPPING, ChatOptions, Options
from tokenwire_client.core.requests import (
    attach_request,
    chat_request,
    checked_timeout,
    duration,
    generate_request,
    new_id,
)


def test_options_go_to_their_groups_and_single_fields_win() -> None:
    request = generate_request(
        "hi",
        {
            "temperature": 0.0,
            "sampling": Sampling(temperature=1.0, seed=3),
            "stop": "END",
            "max_tokens": 7,
            "json_schema": "{}",
            "limits": Limits(max_duration=duration(2.5)),
            "request_id": "mine",
            "labels": {"a": "b"},
            "orphan_grace": 0.5,
            "detached": True,
            "model": "m",
            "system": "short",
            "seed": None,
        },
    )
    assert (request.prompt, request.model, request.system) == ("hi", "m", "short")
    assert request.sampling == Sampling(temperature=0.0, seed=3)
    assert request.sampling.HasField("temperature")
    assert request.stopping == Stopping(max_tokens=7, stop=["END"])
    assert request.constraint == Constraint(json_schema="{}")
    assert (request.limits.max_duration.seconds, request.limits.max_duration.nanos) == (2, 500_000_000)
    assert (request.run.request_id, request.run.detached, dict(request.run.labels)) == ("mine", True, {"a": "b"})
    assert request.run.orphan_grace.nanos == 500_000_000


def test_every_option_has_its_field() -> None:
    grouped = {"sampling": SAMPLING, "stopping": STOPPING, "constraint": CONSTRAINT, "run": (*RUN, "orphan_grace")}
    for kind, options in ((GenerateRequest, Options), (ChatRequest, ChatOptions)):
        fields: Any = kind.DESCRIPTOR.fields_by_name
        for name in options.__annotations__:
            group = next((group for group, names in grouped.items() if name in names), None)
            if group is None:
                assert name in fields
            else:
                assert name in fields[group].message_type.fields_by_name


def test_what_is_not_said_has_a_request_id_and_half_a_minute_of_grace() -> None:
    one, two = generate_request("hi", {}), chat_request("hi", {})
    assert one.run.request_id != two.run.request_id
    assert one.run.orphan_grace.seconds == two.run.orphan_grace.seconds == 30
    ready = GenerateRequest(prompt="hi")
    ready.run.orphan_grace.seconds = 0
    ready.run.orphan_grace.SetInParent()
    assert generate_request(ready, {"n": 2}).run.orphan_grace.seconds == 0
    assert not ready.run.request_id


def test_prompts_may_be_tokens_and_messages_be_said_in_several_ways() -> None:
    assert list(generate_request([1, 2], {}).prompt_ids.ids) == [1, 2]
    assert list(generate_request(TokenIds(ids=[1, 2]), {}).prompt_ids.ids) == [1, 2]
    said = chat_request([("system", "short"), "hi", Message(content="ho")], {"tools": [Tool(name="t")]})
    assert [(one.role, one.content) for one in said.messages] == [
        (ROLE_SYSTEM, "short"),
        (ROLE_UNSPECIFIED, "hi"),
        (ROLE_UNSPECIFIED, "ho"),
    ]
    assert said.tools[0].name == "t"
    with pytest.raises(ValueError, match="ROLE_POET"):
        chat_request([("poet", "hi")], {})


def test_an_option_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="there is no option heat"):
        generate_request("hi", {"heat": 1})
    with pytest.raises(TypeError, match="there is no option tools"):
        generate_request("hi", {"tools": [Tool(name="t")]})


def test_a_run_is_attached_by_one_of_its_names() -> None:
    assert attach_request("run_1", "", 4, None) == AttachRunRequest(run_id="run_1", after=Cursor(seq=4))
    assert attach_request("", "r", None, None) == AttachRunRequest(request_id="r")
    for names in (("", ""), ("run_1", "r")):
        with pytest.raises(ValueError, match="either"):
            attach_request(*names, None, None)


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 1e12, math.nan])
def test_a_timeout_that_grpc_would_misread_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        checked_timeout(seconds)
    assert checked_timeout(None) is None
    assert checked_timeout(0.001) == 0.001


def test_ids_are_unlike() -> None:
    assert len({new_id("py") for _ in range(100)}) == 100
