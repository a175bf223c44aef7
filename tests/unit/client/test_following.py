"""The core of the client: one run over many calls, without a network."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.cursor_pb2 import CHANNEL_KIND_REASONING, CHANNEL_KIND_TOOL_CALL, ChannelOffset, Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.event_pb2 import Delta, Detached, Event, Heartbeat, Progress, Start
from tokenwire.v1.finish_pb2 import STATUS_CODE_ABORTED, RunError
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_pb2 import RunOptions
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest
from tokenwire_client.core.channel import Channel
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure
from tokenwire_client.core.following import Again, Following, Request
from tokenwire_client.core.policy import Policy
from tokenwire_client.errors import (
    BrokenError,
    IntegrityError,
    OverdueError,
    RefusedError,
    RunFailedError,
    TokenwireClientError,
)
from unit.client.story import Server, end_of, joined, text_event

SUBMIT = GenerateRequest(prompt="hi", run=RunOptions(request_id="r"))
BROKEN = Failure(code=Code.UNAVAILABLE, message="Socket closed")
START = Event(start=Start(run_id="run_1", request_id="r"), cursor=Cursor(seq=1))
CHANNELS = [Channel(0), Channel(1), Channel(0, CHANNEL_KIND_REASONING), Channel(0, CHANNEL_KIND_TOOL_CALL, 1)]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def following(
    request: Request = SUBMIT,
    *,
    policy: Policy | None = None,
    clock: Callable[[], float] = Clock(),  # noqa: B008 - nobody changes it
    timeout: float | None = None,
) -> Following:
    return Following(request, policy=policy or Policy(), clock=clock, rng=random.Random(0), timeout=timeout)


def told(code: Code, *, retryable: bool = True, reason: str = "REASON", retry_after: float | None = None) -> Failure:
    return Failure(code=code, message="no", reason=reason, told=True, retryable=retryable, retry_after=retry_after)


def delta(text: str, offset: int, seq: int) -> Event:
    return Event(delta=Delta(text=text, byte_offset=offset), cursor=Cursor(seq=seq))


pieces = st.lists(st.tuples(st.sampled_from(CHANNELS), st.text(min_size=1, max_size=12)), max_size=12)


@given(pieces, st.integers(), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=12), st.booleans())
def test_however_calls_break_each_byte_comes_once_and_is_verified(
    written: list[tuple[Channel, str]], seed: int, breaks: list[tuple[int, int]], attached: bool
) -> None:
    rng = random.Random(seed)
    server = Server(written, rng)
    run = following(AttachRunRequest(run_id="run_1") if attached else SUBMIT)
    got: list[Event] = []
    while True:
        fault = breaks.pop(0) if breaks else None
        outcome: Again | None = None
        for number, event in enumerate(server.events(run.request.after if run.request.HasField("after") else None)):
            if fault is not None and number == fault[0]:
                match fault[1]:
                    case 0:
                        outcome = run.failed(BROKEN)
                    case 1:
                        run.add(Event(detached=Detached(), cursor=run.cursor))
                        outcome = run.failed(told(Code.ABORTED, retryable=False))
                    case 2:
                        run.add(Event(heartbeat=Heartbeat()))
                        outcome = run.failed(Failure(code=Code.INTERNAL, message="RST_STREAM"))
                    case _:
                        outcome = run.failed(told(Code.UNAVAILABLE, reason="DRAINING"))
                break
            new = run.add(event)
            if new is not None:
                got.append(new)
        if outcome is None:
            assert run.finished() is None
            break
    assert joined(got) == server.texts == run.read.all_texts()
    kinds = [event.WhichOneof("event") for event in got]
    assert [kinds.count(one) for one in ("start", "dispatched", "usage", "end", "heartbeat", "detached")] == [
        1, 1, 1, 1, 0, 0,
    ]  # fmt: skip
    assert run.ended
    assert run.cancel is None


@given(pieces.filter(bool), st.integers(), st.data())
def test_repeats_of_any_part_change_nothing(written: list[tuple[Channel, str]], seed: int, data: st.DataObject) -> None:
    server = Server(written, random.Random(seed))
    run = following()
    got: list[Event] = []
    for event in server.events(None):
        if event.HasField("end"):
            break
        got += [new for new in [run.add(event)] if new is not None]
        # Any stretch that is known, and perhaps a little of what is not.
        channel = data.draw(st.sampled_from(sorted(server.texts)))
        text = server.texts[channel]
        known = run.read.text(channel)
        begin = data.draw(st.integers(0, len(known)))
        stop = data.draw(st.integers(begin, len(text)))
        repeat = text_event(channel, len(text[:begin].encode()), text[begin:stop])
        got += [new for new in [run.add(repeat)] if new is not None and begin != stop]
    for channel, text in server.texts.items():
        rest = run.add(text_event(channel, 0, text))
        got += [rest] if rest is not None else []
    assert joined(got) == server.texts
    assert run.add(Event(end=end_of(server.texts))) is not None


@given(pieces.filter(bool), st.integers(), st.data())
def test_a_byte_that_is_lost_changed_or_added_is_an_error(
    written: list[tuple[Channel, str]], seed: int, data: st.DataObject
) -> None:
    server = Server(written, random.Random(seed))
    events = list(server.events(None))
    texts = [number for number, event in enumerate(events) if joined([event])]
    at = data.draw(st.sampled_from(texts))
    [(channel, text)] = joined([events[at]]).items()
    offset = len(server.texts[channel].encode())
    match data.draw(st.sampled_from(["lost", "changed", "added"])):
        case "lost":
            del events[at]
        case "changed":
            other = text_event(channel, events[at].delta.byte_offset, text[:-1] + ("a" if text[-1] != "a" else "b"))
            for kind in ("reasoning_delta", "tool_call_delta"):
                if events[at].HasField(kind):
                    getattr(other, kind).byte_offset = getattr(events[at], kind).byte_offset
            events[at] = other
        case _:
            events.insert(len(events) - 1, text_event(channel, offset, "x"))
    run = following()
    with pytest.raises(IntegrityError) as caught:
        _ = [run.add(event) for event in events]
    assert caught.value.code is Code.DATA_LOSS
    assert not run.ended


def test_a_text_of_a_channel_that_the_end_does_not_know_is_an_error() -> None:
    run = following()
    run.add(delta("text", 0, 2))
    with pytest.raises(IntegrityError, match="does not have"):
        run.add(Event(end=end_of({})))


def test_whoever_joins_later_checks_lengths_and_sums_only_where_it_has_all() -> None:
    texts = {Channel(0): "one two", Channel(1): "other"}
    good, bad = (
        following(AttachRunRequest(run_id="run_1", after=Cursor(seq=9, ahead=[ChannelOffset(byte_offset=3)])))
        for _ in range(2)
    )
    for run in (good, bad):
        run.add(text_event(Channel(0), 3, " two"))
    assert good.add(Event(end=end_of(texts))) is not None
    assert good.read.text(Channel(0)) == " two"
    with pytest.raises(IntegrityError, match="7 of 8 bytes"):
        bad.add(Event(end=end_of({Channel(0): "one two!"})))
    ahead = following(AttachRunRequest(run_id="run_1", after=Cursor(ahead=[ChannelOffset(byte_offset=3)])))
    with pytest.raises(IntegrityError, match="a gap"):
        ahead.add(text_event(Channel(0), 4, "two"))


def test_as_long_as_the_run_is_not_known_the_same_request_is_sent_again() -> None:
    run = following()
    assert run.request is SUBMIT
    assert isinstance(run.failed(BROKEN), Again)
    run.add(Event(progress=Progress(), cursor=Cursor()))
    assert isinstance(run.failed(BROKEN), Again)
    assert run.request is SUBMIT
    assert run.cancel == CancelRunRequest(request_id="r")
    run.add(START)
    assert run.request == AttachRunRequest(run_id="run_1", after=Cursor(seq=1))
    assert run.cancel == CancelRunRequest(run_id="run_1")


def test_the_cursor_is_given_back_as_it_came_and_the_delivery_with_it() -> None:
    delivery = Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=3))
    run = following(ChatRequest(run=RunOptions(request_id="r"), delivery=delivery))
    run.add(START)
    cursor = Cursor(seq=2, ahead=[ChannelOffset(choice=1, byte_offset=4)], epoch=3)
    run.add(Event(delta=Delta(text="half"), cursor=cursor))
    run.add(Event(heartbeat=Heartbeat(), cursor=Cursor(seq=99)))
    assert run.request == AttachRunRequest(run_id="run_1", after=cursor, delivery=delivery)


def test_a_submit_with_a_cursor_goes_on_from_there_under_its_request_id() -> None:
    request = GenerateRequest(prompt="hi", run=RunOptions(request_id="r"), after=Cursor(seq=4))
    run = following(request)
    assert run.request is request
    run.add(delta("later", 10, 5))
    assert isinstance(run.request, GenerateRequest)
    assert run.request.after == Cursor(seq=5)
    by_request = following(AttachRunRequest(request_id="r"))
    assert by_request.request == AttachRunRequest(request_id="r")
    assert by_request.cancel is None


@pytest.mark.parametrize(
    ("failure", "accepted", "again"),
    [
        (BROKEN, True, True),
        (Failure(code=Code.INTERNAL, message="Received RST_STREAM"), True, True),
        (Failure(code=Code.UNKNOWN, message="Stream removed"), False, True),
        (Failure(code=Code.CANCELLED, message=""), True, True),
        (told(Code.UNAVAILABLE), True, True),
        (told(Code.UNAVAILABLE, retryable=False), True, False),
        (told(Code.ABORTED, reason="SLOW_CONSUMER"), True, True),
        (told(Code.ABORTED, reason="SESSION_BUSY"), False, False),
        (told(Code.RESOURCE_EXHAUSTED, retry_after=0.1), False, True),
        (told(Code.RESOURCE_EXHAUSTED), False, False),
        (told(Code.RESOURCE_EXHAUSTED, retry_after=0.1), True, False),
        # What is a bug of the server has its rpc id alone.
        (Failure(code=Code.INTERNAL, message="internal error", told=True, rpc_id="0a1b"), True, False),
        (Failure(code=Code.RESOURCE_EXHAUSTED, message="larger than max"), True, False),
        *((told(code), True, False) for code in (
            Code.DATA_LOSS, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.OUT_OF_RANGE, Code.ALREADY_EXISTS,
            Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED,
        )),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again_and_nothing_else(failure: Failure, accepted: bool, again: bool) -> None:
    run = following()
    if accepted:
        run.add(START)
        run.add(delta("half", 0, 2))
    if again:
        assert isinstance(run.failed(failure), Again)
        return
    with pytest.raises(RefusedError) as caught:
        run.failed(failure)
    assert caught.value.failure is failure
    assert caught.value.text == ("half" if accepted else "")
    # A refusal makes no run; one that was there is not left to run for nobody.
    assert (run.cancel is None) == (not accepted)


def test_a_run_that_ended_with_an_error_is_told_and_never_begun_anew() -> None:
    error = RunError(code=STATUS_CODE_ABORTED, reason="ORPHANED", message="nobody read it", retryable=True)
    status = Failure(code=Code.ABORTED, message="nobody read it", reason="ORPHANED", told=True, rpc_id="0a1b")
    for last in (status, BROKEN, None):
        run = following()
        run.add(START)
        run.add(delta("half", 0, 2))
        run.add(Event(end=end_of({Channel(0): "half"}, error), cursor=Cursor(seq=3)))
        with pytest.raises(RunFailedError) as caught:
            run.finished() if last is None else run.failed(last)
        failed = caught.value
        assert (failed.code, failed.reason, failed.text, failed.retryable) == (Code.ABORTED, "ORPHANED", "half", True)
        assert (failed.cursor, failed.run_id) == (Cursor(seq=3), "run_1")
        assert failed.rpc_id == ("0a1b" if last is status else "")


def test_an_ok_without_an_end_is_an_error_unless_the_view_was_stopped() -> None:
    run = following()
    run.add(START)
    run.add(Event(detached=Detached(), cursor=Cursor(seq=1)))
    assert isinstance(run.finished(), Again)
    with pytest.raises(IntegrityError, match="without its `end`"):
        run.finished()


def test_waits_are_random_grow_and_are_never_shorter_than_asked() -> None:
    policy = Policy(first_wait=0.1, longest_wait=5.0, attempts=50, give_up_after=1e9)
    run = following(policy=policy)
    waits = [run.failed(BROKEN) for _ in range(40)]
    seconds = [again.seconds for again in waits if again is not None]
    assert all(wait <= min(5.0, 0.1 * 2**number) for number, wait in enumerate(seconds))
    assert max(seconds) > 4
    assert len(set(seconds)) == 40
    asked = run.failed(told(Code.UNAVAILABLE, retry_after=7.0))
    assert asked is not None
    assert asked.seconds == 7.0
    run.add(Event(detached=Detached(retry_after_ms=9000)))
    stopped = run.failed(BROKEN)
    assert stopped is not None
    assert stopped.seconds == 9.0
    later = run.failed(BROKEN)
    assert later is not None
    assert later.seconds < 5.0


def test_attempts_are_bounded_and_what_is_new_begins_the_count_anew() -> None:
    run = following(policy=Policy(attempts=3))
    run.add(START)
    for number in range(3):
        again = run.failed(BROKEN)
        assert again is not None
        assert again.attempt == number + 1
    run.add(delta("half", 0, 2))
    for _ in range(3):
        assert isinstance(run.failed(BROKEN), Again)
        # Known already, and a heartbeat: nothing new.
        run.add(delta("half", 0, 2))
        run.add(Event(heartbeat=Heartbeat()))
    with pytest.raises(BrokenError) as caught:
        run.failed(BROKEN)
    assert (caught.value.text, caught.value.cursor) == ("half", Cursor(seq=2))
    assert run.cancel is None, "it can be gone on with by hand"


def test_time_without_anything_new_is_bounded() -> None:
    clock = Clock()
    run = following(policy=Policy(attempts=1000, give_up_after=10.0, longest_wait=1.0), clock=clock)
    clock.now = 1000.0
    for _ in range(9):
        again = run.failed(BROKEN)
        assert again is not None
        clock.now += 1.0
    clock.now += 1.0
    with pytest.raises(BrokenError):
        run.failed(BROKEN)
    patient = following(clock=clock)
    with pytest.raises(RefusedError):
        patient.failed(told(Code.UNAVAILABLE, retry_after=61.0))


def test_the_callers_time_bounds_calls_and_waits() -> None:
    clock = Clock()
    run = following(clock=clock, timeout=10.0)
    clock.now = 4.0
    assert run.time_left == 6.0
    with pytest.raises(OverdueError):
        run.failed(told(Code.UNAVAILABLE, retry_after=6.0))
    with pytest.raises(OverdueError) as caught:
        run.failed(Failure(code=Code.DEADLINE_EXCEEDED, message="Deadline Exceeded"))
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert run.cancel is not None


def test_a_server_that_was_never_reached_is_told_at_once_if_so_wanted() -> None:
    policy = Policy(wait_for_server=False)
    with pytest.raises(BrokenError):
        following(policy=policy).failed(BROKEN)
    assert isinstance(following(policy=policy).failed(told(Code.UNAVAILABLE)), Again)
    heard = following(policy=policy)
    heard.add(Event(heartbeat=Heartbeat()))
    assert isinstance(heard.failed(BROKEN), Again)


def test_a_detached_run_and_another_ones_are_not_cancelled() -> None:
    assert following(GenerateRequest(run=RunOptions(request_id="r", detached=True))).cancel is None
    attached = following(AttachRunRequest(run_id="run_1"))
    assert attached.cancel is None
    assert attached.cancelling == CancelRunRequest(run_id="run_1")


def test_a_submit_must_have_a_request_id() -> None:
    with pytest.raises(ValueError, match="request id"):
        following(GenerateRequest(prompt="hi"))


def test_every_error_is_one_kind_of_error() -> None:
    for kind in (BrokenError, IntegrityError, OverdueError, RefusedError, RunFailedError):
        assert issubclass(kind, TokenwireClientError)
    assert BrokenError(BROKEN).retryable
    assert not RefusedError(told(Code.NOT_FOUND, retryable=False)).retryable
