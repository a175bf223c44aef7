"""What the store's server answers, as values."""

from collections.abc import Sequence
from typing import Any

from tokenwire.journal.redis.store import Entry, Lease, Outcome, Stored, StoreError, Takeovers, Verdict

_VERDICTS = {1: Verdict.DONE, 2: Verdict.HEAD, 3: Verdict.FENCED, 4: Verdict.MISSING}


def appended(answer: Any, last: int) -> Outcome:
    """Reads the answer to an append of events up to a number. Raises StoreError if it cannot be that.

    The number alone says that it was done, and that nobody wants the run cancelled.
    """
    if type(answer) is int and answer == last:
        return Outcome(Verdict.DONE, last)
    told = outcome(answer)
    if told.verdict is Verdict.DONE and told.head != last:
        raise _nonsense()
    return told


def outcome(answer: Any) -> Outcome:
    """Reads the answer to a writer's step. Raises StoreError if it cannot be that."""
    if type(answer) is not list or len(answer) != 3 or answer[0] not in _VERDICTS:
        raise _nonsense()
    verdict, head, cancelled = answer
    return Outcome(_VERDICTS[verdict], head, bool(cancelled))


def stored(name: str, answer: Any) -> Stored:
    """Reads a run."""
    record, owner, epoch, lease_left, head, takeovers, ended_at, cancelled = answer
    return Stored(
        record=record,
        lease=Lease(name=name, owner=owner.decode(), epoch=int(epoch)),
        lease_left=lease_left / 1000,
        head=int(head),
        takeovers=_takeovers(takeovers.decode()),
        ended_at=None if ended_at is None else float(ended_at),
        cancelled=cancelled is not None,
    )


def entries(page: Any) -> list[Entry]:
    """Reads entries of a run's log."""
    return [_entry(place.decode(), fields) for place, fields in page]


def position(page: Sequence[Any], before: str) -> str:
    """Returns up to where entries were read."""
    last: str = page[-1][0].decode() if page else before
    return last


def takeovers_text(takeovers: Takeovers) -> str:
    """Returns take-overs as the store keeps them."""
    return ",".join(f"{epoch}:{head}" for epoch, head in takeovers)


def _takeovers(text: str) -> Takeovers:
    pairs = (one.partition(":") for one in text.split(",") if one)
    return tuple((int(epoch), int(head)) for epoch, _, head in pairs)


def _entry(place: str, fields: Sequence[bytes]) -> Entry:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    last = int(place.partition("-")[0])
    return Entry(place=place, first=int(values[b"n"]), last=last, epoch=int(values[b"e"]), frame=values[b"f"])


def _nonsense() -> StoreError:
    return StoreError("the journal's server does not answer what it was asked")
