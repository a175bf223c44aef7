"""A server tells its version, and which journal it has."""

from pathlib import Path

import pytest

from harness.service import service
from tokenwire import __version__
from tokenwire.rpc.server_info import FEATURES
from tokenwire.v1.server_service_pb2 import GetServerInfoRequest


@pytest.mark.asyncio
async def test_it_tells_the_journal_that_it_has(tmp_path: Path) -> None:
    for journal, name in (("memory", "memory"), (f"file:{tmp_path}/journal", "file")):
        async with service(journal=journal) as running:
            info = await running.server.GetServerInfo(GetServerInfoRequest())
        assert info.version == __version__
        assert list(info.features) == sorted((*FEATURES, f"journal.{name}"))
