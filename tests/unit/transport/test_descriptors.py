"""File descriptors: how many there are, and that clients and engines cannot take each other's."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.transport.descriptors import MOST, SPARE, obtainable, shares, take

NONE = resource.RLIM_INFINITY


@given(st.integers(0, 20_000), st.integers(SPARE + 2, 100_000))
def test_streams_their_engines_and_their_clients_fit_together(streams_max: int, available: int) -> None:
    shared = shares(streams_max, available)
    assert shared.streams <= (streams_max or available)
    assert shared.streams == streams_max or shared.streams >= (available - SPARE) // 2
    # Each stream may come on a connection of its own.
    assert 1 <= shared.streams <= shared.connections
    assert shared.streams + shared.connections + SPARE <= available


@given(st.integers(0, SPARE + 2))
def test_where_there_are_next_to_none_one_stream_is_served(available: int) -> None:
    assert shares(1000, available).streams == 1


@pytest.mark.parametrize(
    ("soft", "hard", "most", "raised"),
    [
        (1024, 4096, 4096, (4096, 4096)),
        (1024, 1_048_576, MOST, (MOST, 1_048_576)),
        (1024, NONE, MOST, (MOST, NONE)),
        (4096, 4096, 4096, None),
        (500_000, 1_000_000, 500_000, None),
        (NONE, NONE, MOST, None),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_helps_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most: int, raised: tuple[int, int] | None
) -> None:
    calls: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: calls.append((what, limits)))
    assert obtainable() == most
    take()
    assert calls == ([] if raised is None else [(resource.RLIMIT_NOFILE, raised)])
