"""The short way for what nearly every message is says the same as the long one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.run_events import Written, run_events, write
from tokenwire.delivery.view import MAX_TEXT_BYTES, View
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.events import Envelope
from tokenwire.domain.request import Buffering, BufferingMode, Delivery
from tokenwire.journal.log import RunLog

SIZE = Delivery(buffering={ChannelKind.TEXT: Buffering(mode=BufferingMode.SIZE, size=3)})


class LongWay(View):
    def newest(self) -> Envelope | None:
        return None


@given(run_events(max_size=12), st.booleans(), st.sampled_from([None, SIZE]), st.lists(st.integers(1, 3), max_size=12))
def test_both_ways_tell_the_same(
    events: list[Written], token_ids: bool, delivery: Delivery | None, steps: list[int]
) -> None:
    log = RunLog()
    views = [kind(log, delivery=delivery, token_ids=token_ids) for kind in (View, LongWay)]
    left = list(events)
    for step in [*steps, len(left)]:
        write(log, left[:step])
        del left[:step]
        log.wake()
        short, long = ([*view.take()] for view in views)
        assert short == long
        assert views[0].cursor == views[1].cursor


def appended(log: RunLog, text: str = "a") -> None:
    log.append_text(Channel(), text, 1, (7,), 1)
    log.wake()


@pytest.mark.parametrize("token_ids", [False, True])
@pytest.mark.parametrize("delivery", [None, SIZE])
def test_new_text_of_the_one_channel_takes_the_short_way_unless_it_is_cut_or_has_ids(
    token_ids: bool, delivery: Delivery | None
) -> None:
    log = RunLog()
    appended(log)
    view = View(log, delivery=delivery, token_ids=token_ids)
    view.take()
    appended(log, "bcd")
    newest = view.newest()
    assert (newest is not None) is (not token_ids and delivery is None)
    assert view.newest() is None


def test_more_than_a_message_holds_takes_the_long_way() -> None:
    log = RunLog()
    view = View(log)
    appended(log)
    list(view.take())
    appended(log, "x" * (MAX_TEXT_BYTES + 1))
    assert view.newest() is None
    assert len(list(view.take())) == 2


def test_what_is_not_committed_is_not_taken() -> None:
    log = RunLog()
    view = View(log)
    appended(log)
    list(view.take())
    log.append_text(Channel(), "b", 1)
    assert view.newest() is None
