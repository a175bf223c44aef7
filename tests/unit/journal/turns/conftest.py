"""The tests in this folder run in time that jumps: hours take no time."""

from harness.clock import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
