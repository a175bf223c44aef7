"""Runs, leases and frames for tests of the store."""

from tokenwire.journal.redis.names import request_name
from tokenwire.journal.redis.store import BEGINNING, Append, Ending, Lease, NewRun, Store

LONG = 3600.0
CREATED_AT = 1_700_000_000.0
REQUEST = request_name("my request")


def lease(name: str = "t:one", owner: str = "a", epoch: int = 1) -> Lease:
    return Lease(name=name, owner=owner, epoch=epoch)


def new(held: Lease | None = None, *, seconds: float = LONG, request: str = "", keep: float = LONG) -> NewRun:
    held = held or lease()
    return NewRun(
        lease=held,
        request=request,
        record=f"record of {held.name}".encode(),
        takeovers=tuple((epoch, 5) for epoch in range(2, held.epoch + 1)),
        created_at=CREATED_AT,
        lease_seconds=seconds,
        keep_seconds=keep,
    )


def frame(
    held: Lease, first: int, last: int, *, end: bool = False, seconds: float = LONG, keep: float = LONG
) -> Append:
    ending = Ending(at=1_700_000_001.5, record=b"small", keep_seconds=keep) if end else None
    data = f"{first}-{last} by {held.owner}".encode()
    return Append(
        lease=held, first=first, last=last, frame=data, lease_seconds=seconds, keep_seconds=LONG, ending=ending
    )


async def frames(store: Store, name: str = "t:one") -> list[tuple[int, int, int]]:
    return [(one.first, one.last, one.epoch) for one in await store.read(name, BEGINNING)]
