"""What does not count, and why."""

from bench.tally import merged
from bench.void import failures, miscounted, too_busy
from unit.bench.measured import tally


def test_a_run_in_which_all_went_well_counts() -> None:
    assert miscounted(tally()) == ""


def test_one_token_too_few_or_too_many_is_void() -> None:
    assert miscounted(tally(tokens=4999)) == "4999 tokens came of 5000"
    assert miscounted(tally(tokens=5001)) == "5001 tokens came of 5000"


def test_one_call_that_failed_is_void_and_tells_how() -> None:
    failed = tally(done=98, failed=2, calls_failed={"8": 1, "14": 1})
    assert miscounted(failed) == failures(failed) == "2 of 100 calls failed (14: 1, 8: 1)"


def test_a_call_that_never_ended_is_void() -> None:
    assert miscounted(tally(done=99)) == "99 of 100 calls ended"


def test_a_load_program_may_use_85_percent_of_a_core() -> None:
    assert too_busy(client_seconds=0.85, engine_seconds=0.85, wall_seconds=1) == ""
    assert too_busy(client_seconds=1.72, engine_seconds=0, wall_seconds=2) == "the load client used 86% of a core"
    assert too_busy(client_seconds=0, engine_seconds=1.72, wall_seconds=2) == "the load engine used 86% of a core"


def test_in_an_instant_nobody_is_too_busy() -> None:
    assert too_busy(client_seconds=0.1, engine_seconds=0.1, wall_seconds=0.1) == ""


def test_clients_at_the_same_time_add_up_and_the_worst_latency_stands() -> None:
    one = tally(added_p99_us=500.0, wall_seconds=2.0, calls_failed={"8": 1}, failed=1)
    other = tally(tokens=1, expected=2, calls_failed={"8": 2, "14": 1}, failed=3)
    both = merged([one, other])
    assert (both.streams, both.tokens, both.expected, both.failed) == (200, 5001, 5002, 4)
    assert (both.added_p99_us, both.wall_seconds, both.tokens_per_second) == (500, 2, 10000)
    assert both.calls_failed == {"8": 3, "14": 1}
    assert merged([one]) is one
