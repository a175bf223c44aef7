"""A client of tokenwire whose streams do not break: it reconnects, resumes, verifies, and cancels what it leaves."""

from tokenwire_client.aio.batch import AsyncBatch
from tokenwire_client.aio.client import AsyncClient
from tokenwire_client.aio.stream import AsyncStream
from tokenwire_client.core.answer import Result
from tokenwire_client.core.batching import Outcome
from tokenwire_client.core.channel import Channel
from tokenwire_client.core.code import Code
from tokenwire_client.core.failure import Failure, Violation
from tokenwire_client.core.policy import Policy
from tokenwire_client.errors import (
    BrokenError,
    IntegrityError,
    OverdueError,
    RefusedError,
    RunFailedError,
    TokenwireClientError,
)
from tokenwire_client.sync.batch import Batch
from tokenwire_client.sync.client import Client
from tokenwire_client.sync.stream import Stream

__all__ = [
    "AsyncBatch",
    "AsyncClient",
    "AsyncStream",
    "Batch",
    "BrokenError",
    "Channel",
    "Client",
    "Code",
    "Failure",
    "IntegrityError",
    "Outcome",
    "OverdueError",
    "Policy",
    "RefusedError",
    "Result",
    "RunFailedError",
    "Stream",
    "TokenwireClientError",
    "Violation",
]
