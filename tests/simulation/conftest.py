"""Options of the simulation: one seed again, or more of them."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --seed and --schedules to runs that name this folder."""
    parser.addoption("--seed", type=int, default=None, help="play this one schedule and no other")
    parser.addoption("--schedules", type=int, default=None, help="how many schedules of each kind to play")
