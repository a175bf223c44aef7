"""Figures of calls that have run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import per_token, token_figures
from bench.void import VoidError
from unit.bench.measured import burst, tally

CALLS = burst(tally(tokens=100, expected=100, messages=400), gateway_seconds=0.05, engine_seconds=0.002)
LONG = burst(tally(), gateway_seconds=0.25, engine_seconds=0.002 + 0.0049, companion_seconds=0.049)


@given(
    call=st.floats(0, 1e-2), token=st.floats(1e-7, 1e-3), streams=st.integers(1, 1000), tokens=st.integers(2, 10_000)
)
def test_what_a_token_costs_is_found_whatever_a_call_costs(
    call: float, token: float, streams: int, tokens: int
) -> None:
    long, calls = streams * (call + tokens * token), streams * (call + token)
    assert per_token(long, calls, streams=streams, tokens=tokens) == pytest.approx(token, rel=1e-4)


def test_figures_are_net_of_the_calls_own_cost() -> None:
    values = token_figures(LONG, CALLS, tokens=50)
    # 0.2 seconds for 100 times 49 tokens; the calls' own 0.05 seconds and 300 messages are no token's.
    assert values["cpu_us_per_token"] == pytest.approx(0.2e6 / 4900)
    assert values["engine_us_per_token"] == pytest.approx(1.0)
    assert values["companion_us_per_token"] == pytest.approx(10.0)
    assert values["messages_per_token"] == pytest.approx(1.0)
    assert values["client_us_per_token"] == pytest.approx(0.0)
    assert values["added_p99_us"] == 200


def test_what_runs_beside_a_gateway_is_told_only_where_something_does() -> None:
    assert "companion_us_per_token" not in token_figures(burst(), CALLS, tokens=50)


def test_a_paced_engine_tells_nothing_of_the_first_token() -> None:
    assert not [name for name in token_figures(LONG, CALLS, tokens=50) if name.startswith("ttft")]


@pytest.mark.parametrize(("busy", "who"), [("busiest_client_seconds", "client"), ("engine_seconds", "engine")])
def test_figures_of_load_programs_that_were_too_busy_are_kept_but_void(busy: str, who: str) -> None:
    with pytest.raises(VoidError, match=f"the load {who} used 86% of a core") as error:
        token_figures(burst(tally(), **{busy: 0.86}), CALLS, tokens=50)
    assert error.value.values["cpu_us_per_token"] > 0


def test_tokens_that_cost_less_than_nothing_are_void() -> None:
    with pytest.raises(VoidError, match="calls with one token have cost more"):
        token_figures(burst(gateway_seconds=0.04), CALLS, tokens=50)
