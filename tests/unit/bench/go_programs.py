"""Builds the load programs for tests, or skips those where that cannot be done."""

import shutil
import subprocess
import sys

import pytest

from bench.programs import SOURCES, Programs, ensure


def built() -> Programs:
    """Returns the load programs; skips the test where there is no Go, or nothing that it needs can be fetched."""
    if sys.platform != "linux":
        pytest.skip("the load programs need Linux")
    if shutil.which("go") is None:
        pytest.skip("there is no go")
    fetched = subprocess.run(["go", "mod", "download"], cwd=SOURCES, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip("the load programs' Go modules cannot be fetched")
    return ensure()
