"""How long a client goes on without anything new."""

from random import Random

from tokenwire_client.core.pace import Pace
from tokenwire_client.core.policy import Policy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_in_which_the_server_said_that_it_lives_is_none_without_it() -> None:
    clock = Clock()
    pace = Pace(Policy(give_up_after=60.0), clock, Random(1))
    assert pace.wait(0.0) is not None
    clock.now = 70.0
    pace.alive()
    assert pace.wait(0.0) is not None


def test_time_without_a_word_is_bounded() -> None:
    clock = Clock()
    pace = Pace(Policy(give_up_after=60.0), clock, Random(1))
    assert pace.wait(0.0) is not None
    clock.now = 70.0
    assert pace.wait(0.0) is None


def test_a_server_that_says_that_it_lives_and_nothing_else_is_not_asked_for_ever() -> None:
    pace = Pace(Policy(attempts=3), Clock(), Random(1))
    waits = []
    for _ in range(4):
        pace.alive()
        waits.append(pace.wait(0.0))
    assert [wait is not None for wait in waits] == [True, True, True, False]
