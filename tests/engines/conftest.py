"""The embedded engine as a fixture; each test has a child of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engines.embedded import MODELS, started
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine


@pytest.fixture(scope="session")
def cache() -> Path:
    """Returns the folder of the model, which outlives the test run."""
    return MODELS


@pytest_asyncio.fixture
async def engine(cache: Path, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    async with started(cache, tmp_path) as engine:
        yield engine
