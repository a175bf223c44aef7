"""Nothing that a client can say gets lost on its way into the domain."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message

from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.request import Delivery, Role, Submission, engine_fields
from tokenwire.rpc.requests import delivery_of, from_chat, from_cursor, from_generate
from tokenwire.v1 import (
    chat_service_pb2,
    cursor_pb2,
    generate_service_pb2,
    message_pb2,
    run_pb2,
    run_service_pb2,
)
from unit.rpc.fields import Case, every_field

GENERATE, CHAT = generate_service_pb2.GenerateRequest, chat_service_pb2.ChatRequest
ATTACH = run_service_pb2.AttachRunRequest
# Groups say nothing as long as they are empty.
EMPTY = {"sampling", "stopping", "output", "delivery", "limits", "run", "kv", "reasoning"}
# These must hold something: validation refuses them.
EMPTY |= {"constraint", "constraint.choice", "tool_choice", "prompt_ids"}
# An empty group already asks for the chosen token alone, which is what 0 says.
SAME_AS_UNSET = {"output.logprobs.top_n", "output.prompt_logprobs.top_n"}
# What tokenwire does itself; everything else must be held against what the engine has.
OWN = ("model", "delivery", "limits", "run", "after", "output.token_ids", "output.full_text")


def read(request: Any) -> tuple[Submission, Delivery] | None:
    """Returns what the domain hears, without the fingerprint; None where validation would have refused the request."""
    convert = from_generate if isinstance(request, GENERATE) else from_chat
    try:
        return replace(convert(request), fingerprint=b""), delivery_of(request)
    except AssertionError:
        return None


def fingerprint(request: Any) -> bytes:
    """Returns the fingerprint of a request, which one without an id does not have."""
    named = type(request)()
    named.CopyFrom(request)
    named.run.request_id = request.run.request_id or "a"
    return (from_generate if isinstance(request, GENERATE) else from_chat)(named).fingerprint


# The sample is what an engine does that does not have the field, or a tool without a name.
ASKS_NOTHING = {"sampling.repetition_penalty", "sampling.n", "stopping.skip_special_tokens", "tools"}


def cases(*, zero: bool = False) -> list[Any]:
    return [
        pytest.param(case, id=f"{kind.DESCRIPTOR.name}.{case.path}")
        for kind in (GENERATE, CHAT)
        for case in every_field(kind, zero=zero)
        if case.path not in EMPTY
    ]


@pytest.mark.parametrize("case", cases())
def test_every_field_reaches_the_domain(case: Case) -> None:
    heard = read(case.given)
    assert heard is not None
    if heard[1].unknown:
        # Refused by the name of its group.
        assert case.path.split(".")[:2] == ["delivery", heard[1].unknown[0]]
    else:
        assert heard != read(case.bare)


@pytest.mark.parametrize("case", cases(zero=True))
def test_zero_is_not_unset(case: Case) -> None:
    heard = read(case.given)
    assert heard is not None
    if case.path not in SAME_AS_UNSET and not heard[1].unknown:
        assert heard != read(case.bare)


@pytest.mark.parametrize("case", cases())
def test_a_field_is_tokenwire_s_own_or_held_against_what_the_engine_has(case: Case) -> None:
    heard, bare = read(case.given), read(case.bare)
    assert heard is not None
    told = set(engine_fields(heard[0]))
    own = any(f"{case.path}.".startswith(f"{name}.") for name in OWN) and case.path != "run.priority"
    if own:
        assert told == set(engine_fields(Submission(prompt=heard[0].prompt)))
    elif heard != bare and case.path not in ASKS_NOTHING:
        group = case.path.split(".")[0].replace("system", "messages")
        assert any(field.split(".")[0] == group for field in told)


@pytest.mark.parametrize("case", cases())
def test_the_fingerprint_leaves_out_delivery_and_after_alone(case: Case) -> None:
    same = fingerprint(case.given) == fingerprint(type(case.given)())
    assert same == (case.path.split(".")[0] in ("delivery", "after"))


def test_the_fingerprint_of_labels_does_not_depend_on_their_order() -> None:
    there, back = GENERATE(prompt="a"), GENERATE(prompt="a")
    for request, names in ((there, "abcdef"), (back, "fedcba")):
        for name in names:
            request.run.labels[name] = name
    assert fingerprint(there) == fingerprint(back)


def test_only_a_request_with_an_id_is_ever_compared() -> None:
    assert not from_generate(GENERATE(prompt="a")).fingerprint
    assert from_generate(GENERATE(prompt="a", run=run_pb2.RunOptions(request_id="r"))).fingerprint


def test_the_same_groups_make_other_requests_in_another_service() -> None:
    assert fingerprint(GENERATE(model="m")) != fingerprint(CHAT(model="m"))


def test_one_field_is_enough_and_a_message_without_a_role_is_the_users() -> None:
    assert from_generate(GENERATE(prompt="hi")).prompt == "hi"
    (message,) = from_chat(CHAT(messages=[message_pb2.Message(content="hi")])).messages
    assert (message.role, message.content) == (Role.USER, "hi")


def test_instructions_come_first_and_make_a_chat_of_a_prompt() -> None:
    for submission in (
        from_generate(GENERATE(prompt="hi", system="be kind")),
        from_chat(CHAT(messages=[message_pb2.Message(content="hi")], system="be kind")),
    ):
        assert [(one.role, one.content) for one in submission.messages] == [(Role.SYSTEM, "be kind"), (Role.USER, "hi")]
        assert submission.prompt is None


def test_a_cursor_is_sorted_and_written_by_hand_it_is_one_number() -> None:
    kinds = (cursor_pb2.CHANNEL_KIND_TOOL_CALL, cursor_pb2.CHANNEL_KIND_UNSPECIFIED)
    ahead = [cursor_pb2.ChannelOffset(choice=1, kind=kind, byte_offset=7) for kind in kinds]
    assert from_cursor(cursor_pb2.Cursor(seq=41)) == Cursor(41)
    assert from_cursor(cursor_pb2.Cursor(seq=41, ahead=ahead)) == Cursor(
        41, ((Channel(1), 7), (Channel(1, ChannelKind.TOOL_CALL), 7))
    )


@pytest.mark.parametrize("case", every_field(ATTACH), ids=lambda case: case.path)
def test_an_attach_reads_its_delivery_and_its_cursor(case: Case) -> None:
    request: Any = case.given
    heard = (request.run_id, request.request_id, from_cursor(request.after), delivery_of(request))
    bare: Any = case.bare
    if case.path not in ("after", "delivery") and not heard[-1].unknown:
        assert heard != (bare.run_id, bare.request_id, from_cursor(bare.after), delivery_of(bare))


def test_other_messages_have_no_delivery() -> None:
    other: Message = cursor_pb2.Cursor()
    assert delivery_of(other) == delivery_of(object()) == Delivery()
