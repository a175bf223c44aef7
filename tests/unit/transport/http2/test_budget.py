"""The budget of what costs us work."""

from tokenwire.transport.http2.budget import Budget


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(budget: Budget, times: int) -> int:
    """Returns how many of so many there were."""
    return sum(budget.take() for _ in range(times))


def test_there_are_as_many_at_once_as_the_burst() -> None:
    assert taken(Budget(5, 1.0, Clock()), 10) == 5


def test_they_come_back_with_time_and_never_more_than_the_burst() -> None:
    clock = Clock()
    budget = Budget(5, 2.0, clock)
    assert taken(budget, 5) == 5
    clock.now += 1.5
    assert taken(budget, 3) == 3
    clock.now += 3600
    assert taken(budget, 10) == 5


def test_whoever_keeps_to_the_rate_is_never_refused() -> None:
    clock = Clock()
    budget = Budget(2, 4.0, clock)
    assert budget.take()
    for _ in range(1000):
        clock.now += 0.25
        assert budget.take()


def test_whoever_does_not_stop_gets_none_back() -> None:
    clock = Clock()
    budget = Budget(2, 4.0, clock)
    taken(budget, 1000)
    clock.now += 1
    assert not budget.take()
