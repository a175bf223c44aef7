"""Properties are tried on the same examples every time, without a deadline, unless another profile is asked for."""

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Loads hypothesis's own profile for that."""
    if not config.getoption("--hypothesis-profile"):
        hypothesis.settings.load_profile("ci")
