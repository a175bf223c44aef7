"""The embedded engine as a fixture: on a child that tests share. Those that harm it have one of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from engines.embedded import CONTEXT, MODELS, SLOTS
from engines.shared_child import SharedChild, shared, using
from tokenwire.engines.llamacpp.adapter import LlamaCppEngine


@pytest.fixture(scope="session")
def cache() -> Path:
    """Returns the folder of the model, which outlives the test run."""
    return MODELS


@pytest.fixture(scope="session")
def shared_child() -> Iterator[SharedChild]:
    with shared(SLOTS, CONTEXT) as child:
        yield child


@pytest_asyncio.fixture
async def engine(shared_child: SharedChild, tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    """Returns an engine whose child other tests use as well."""
    async with using(shared_child, tmp_path) as engine:
        yield engine
