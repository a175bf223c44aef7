"""An engine that fails is left alone, tried by one, and let in again."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tokenwire.dispatch.breaker import Breaker, BreakerLimits, BreakerState, Pass

LIMITS = BreakerLimits()


@dataclass
class Bench:
    """A breaker and its clock; its pauses are as long as they can be."""

    now: float = 0.0
    closings: int = 0
    breaker: Breaker = field(init=False)

    def __post_init__(self) -> None:
        rng = Random()
        rng.random = lambda: 0.0  # type: ignore[method-assign]
        self.breaker = Breaker(lambda: self.now, rng, LIMITS, self._closed)

    def _closed(self) -> None:
        self.closings += 1

    def state(self) -> BreakerState:
        return self.breaker.state

    def fail(self, *, after: bool = False, times: int = 1) -> None:
        for _ in range(times):
            one = self.breaker.enter()
            if after:
                one.answer()
            one.fail()


def test_failures_before_the_first_token_open_it_if_they_come_one_after_another() -> None:
    bench = Bench()
    bench.fail(times=4)
    bench.breaker.enter().answer()
    bench.fail(times=4)
    assert bench.state() is BreakerState.CLOSED
    bench.fail()
    assert bench.state() is BreakerState.OPEN
    assert not bench.breaker.admits


def test_failures_after_the_first_token_are_counted_apart_within_a_time() -> None:
    bench = Bench()
    bench.fail(times=4)
    bench.fail(after=True, times=2)
    bench.now = LIMITS.window
    bench.fail(after=True, times=2)
    assert bench.state() is BreakerState.CLOSED
    bench.fail(after=True)
    assert bench.state() is BreakerState.OPEN


def test_one_attempt_at_a_time_finds_out_whether_the_engine_is_back() -> None:
    bench = Bench()
    bench.fail(times=5)
    bench.now = 0.99
    assert not bench.breaker.admits
    assert bench.breaker.wait(ready=True) == pytest.approx(0.01)
    bench.now = 1.0
    assert bench.state() is BreakerState.HALF_OPEN
    probe = bench.breaker.enter()
    assert not bench.breaker.admits
    # One that ends without a word, such as a cancelled one, lets another one try.
    probe.leave()
    probe = bench.breaker.enter()
    probe.answer()
    assert (bench.state(), bench.closings) == (BreakerState.CLOSED, 1)


def test_it_stays_open_twice_as_long_each_time_up_to_a_limit() -> None:
    bench, pauses = Bench(), []
    bench.fail(times=5)
    for _ in range(7):
        pauses.append(bench.breaker.wait(ready=False))
        bench.now += pauses[-1]
        bench.fail()
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30])


def test_an_engine_that_is_well_by_its_health_is_tried_within_the_time_of_a_recovery() -> None:
    bench = Bench()
    bench.fail(times=5)
    for _ in range(6):
        bench.now += bench.breaker.wait(ready=False)
        bench.fail()
    assert bench.breaker.wait(ready=False) == pytest.approx(30)
    assert bench.breaker.wait(ready=True) <= 4.0


def test_its_health_opens_it_and_lets_one_try_at_once_when_it_is_back() -> None:
    bench = Bench()
    bench.breaker.ready()
    assert bench.state() is BreakerState.CLOSED
    bench.breaker.trip()
    assert bench.state() is BreakerState.OPEN
    bench.breaker.ready()
    assert bench.state() is BreakerState.HALF_OPEN
    bench.breaker.enter()
    assert not bench.breaker.admits


def test_a_whole_answer_makes_the_next_pause_short_again_and_a_first_token_does_not() -> None:
    bench = Bench()
    for whole, pause in ((False, 1), (False, 2), (True, 4), (False, 1)):
        bench.fail(after=True, times=3 if bench.closings == 0 else 1)
        assert bench.breaker.wait(ready=False) == pytest.approx(pause)
        bench.now += pause
        probe = bench.breaker.enter()
        probe.answer()
        if whole:
            probe.finish()
        else:
            probe.leave()


def test_a_failure_that_does_not_count_opens_nothing_but_what_was_to_be_tried() -> None:
    bench = Bench()
    for _ in range(20):
        bench.breaker.enter().fail(counts=False)
    assert bench.state() is BreakerState.CLOSED
    bench.breaker.trip()
    bench.breaker.ready()
    bench.breaker.enter().fail(counts=False)
    assert bench.state() is BreakerState.OPEN


class Machine(RuleBasedStateMachine):
    """A breaker beside what its words say, in any order of events."""

    passes = Bundle("passes")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.before = 0
        self.after: list[float] = []
        self.until: float | None = None
        self.opened_at = 0.0
        self.opened = 0
        self.probe: Pass | None = None

    def opens(self) -> None:
        self.opened += 1
        self.opened_at = self.bench.now
        self.until = self.bench.now + min(2.0 ** (self.opened - 1), 30.0)
        self.before, self.probe = 0, None

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 31.0, 61.0]))
    def passes_time(self, seconds: float) -> None:
        self.bench.now += seconds

    @rule(target=passes)
    def enters(self) -> Pass | None:
        if not self.bench.breaker.admits:
            return None
        one = self.bench.breaker.enter()
        if self.until is not None:
            self.probe = one
        return one

    @rule(one=passes)
    def answers(self, one: Pass | None) -> None:
        if one is None or one.answered or one._done:
            return
        one.answer()
        self.before = 0
        if one is self.probe:
            self.until = self.probe = None

    @rule(one=consumes(passes), counts=st.booleans())
    def fails(self, one: Pass | None, counts: bool) -> None:
        if one is None or one._done:
            return
        answered = one.answered
        one.fail(counts=counts)
        full = False
        if counts and answered:
            self.after.append(self.bench.now)
            full = sum(at > self.bench.now - LIMITS.window for at in self.after) >= LIMITS.after
        elif counts:
            self.before += 1
            full = self.before >= LIMITS.before
        probed = one is self.probe
        if probed:
            self.probe = None
        if probed or (full and self.until is None):
            self.opens()

    @rule(one=consumes(passes))
    def leaves(self, one: Pass | None) -> None:
        if one is not None:
            one.leave()
            if one is self.probe:
                self.probe = None

    @rule()
    def goes_down(self) -> None:
        if self.until is None or self.bench.now >= self.until:
            self.opens()
        self.bench.breaker.trip()

    @rule()
    def comes_back(self) -> None:
        self.bench.breaker.ready()
        if self.until is not None:
            self.until = min(self.until, self.bench.now)

    @rule()
    def is_asked_while_it_is_well(self) -> None:
        self.bench.breaker.wait(ready=True)
        if self.until is not None:
            self.until = min(self.until, self.opened_at + LIMITS.ready_max)

    @invariant()
    def lets_through_what_it_should(self) -> None:
        closed = self.until is None
        open_ = self.until is not None and self.bench.now < self.until
        expected = BreakerState.CLOSED if closed else BreakerState.OPEN if open_ else BreakerState.HALF_OPEN
        assert self.bench.breaker.state is expected
        assert self.bench.breaker.admits == (closed or (not open_ and self.probe is None))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
