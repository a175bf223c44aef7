"""What every test over a real channel needs."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="session")
def modules_are_not_searched_for_garbage() -> None:
    """Makes the leak gate's collections cheap: what exists before the first test stays anyway."""
    gc.collect()
    gc.freeze()
