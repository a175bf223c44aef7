"""What the journal needs of a store that all gateways share: a few steps, each of them whole or not at all.

Times are the store's own; no gateway's clock counts. Every step may be sent again after its answer was lost, and then
answers as if it had been done once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

Takeovers = tuple[tuple[int, int], ...]


class StoreError(Exception):
    """The store did not answer, or not as one that works; whether the step was done is not known."""


class StoreFullError(StoreError):
    """The store has no memory left for what was to be written."""


class Lease(NamedTuple):
    """A run's one writer.

    Attributes:
        name: the run's.
        owner: the gateway.
        epoch: the number of this writer, larger than those before.
    """

    name: str
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that the store does not have, or has lost.

    Attributes:
        lease: its writer.
        request: its request id's name, or empty.
        record: see record.py.
        takeovers: for each epoch after the first the head at which it began.
        created_at: wall-clock seconds.
        lease_seconds: how long the writer may be silent.
        keep_seconds: how long it is kept if nobody renews the lease.
    """

    lease: Lease
    request: str
    record: bytes
    takeovers: Takeovers
    created_at: float
    lease_seconds: float
    keep_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is written with a run's last event.

    Attributes:
        at: wall-clock seconds.
        record: takes the place of the run's record.
        keep_seconds: how long the run is kept from now on.
    """

    at: float
    record: bytes
    keep_seconds: float


class Append(NamedTuple):
    """Events of a run, as one frame.

    Attributes:
        lease: who writes.
        first: the number of the first event; `last` of the last one, first - 1 if the frame holds no event.
        frame: the events.
        lease_seconds: how long the writer may be silent from now on.
        keep_seconds: how long the run is kept if nobody renews the lease.
        ending: if the last event is the run's end.
    """

    lease: Lease
    first: int
    last: int
    frame: bytes
    lease_seconds: float
    keep_seconds: float
    ending: Ending | None = None


class Verdict(Enum):
    """What became of a writer's step."""

    # It was done.
    DONE = auto()
    # Nothing was written: the frame does not follow the run's head.
    HEAD = auto()
    # Another writer has the run.
    FENCED = auto()
    # The store has lost the run, or has an older state of it than its writer.
    MISSING = auto()


class Outcome(NamedTuple):
    """What became of a writer's step, the number of the run's last event, and whether a client asked for its cancel."""

    verdict: Verdict
    head: int
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A run in the store.

    Attributes:
        record: see record.py.
        lease: its last writer.
        lease_left: seconds until anybody may take it over; not more than 0: now.
        head: the number of its last event.
        takeovers: for each epoch after the first the head at which it began.
        ended_at: wall-clock seconds, or None.
        cancelled: whether a client asked for its cancel.
    """

    record: bytes
    lease: Lease
    lease_left: float
    head: int
    takeovers: Takeovers
    ended_at: float | None
    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A frame in the store.

    Attributes:
        place: where it is among the run's frames; places in a run's log sort as its events do.
        first: the number of its first event; `last` of the last one.
        epoch: the writer's.
        frame: the events.
    """

    place: str
    first: int
    last: int
    epoch: int
    frame: bytes


# Before all entries.
BEGINNING = "0-0"


@dataclass(frozen=True, slots=True)
class Message:
    """What one gateway tells another, or all: `kind` is one of those below."""

    kind: str
    name: str


# A client wants the run to be cancelled.
CANCEL = "cancel"
# The run's last reader at another gateway has left.
UNATTENDED = "unattended"
# The run has been let go: anybody may take it over.
RELEASED = "released"
# Says nothing; ends `listen`.
WAKE = "wake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a gateway heard: new entries by run, messages to it and to all, and up to where it has heard them."""

    entries: Mapping[str, Sequence[Entry]]
    messages: Sequence[Message]
    own: str
    shared: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """One life of the store, from empty to lost: its id, and its age in seconds."""

    id: str
    age: float


class Store(Protocol):
    """The shared store. Everything raises StoreError."""

    async def start(self) -> None:
        """Comes up. Raises JournalError if the store is not one that can be used."""
        ...

    async def incarnation(self, proposed: str) -> Incarnation:
        """Returns the store's incarnation; an empty store takes the id that is proposed."""
        ...

    async def uptime(self) -> float:
        """Returns for how many seconds the store has been up."""
        ...

    async def claim(self, tenant: str, request: str, run_id: str, replaces: str, seconds: float) -> tuple[str, bool]:
        """Claims a request id for a run, for so many seconds or until the run is created.

        A request id that names another run than `replaces` is left as it is. Returns the run that the request id names
        now, and whether that run has been created.
        """
        ...

    async def resolve(self, tenant: str, request: str) -> str:
        """Returns the id of the run that a request id names, or an empty one."""
        ...

    async def create(self, run: NewRun) -> Outcome:
        """Writes a run without its events, where it is missing; a state of it with a smaller epoch is replaced."""
        ...

    async def discard(self, run: NewRun) -> None:
        """Removes a run that was created in vain, unless it has events or another writer, and its claim."""
        ...

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """Appends frames, each whole or not at all, and renews the leases."""
        ...

    async def finish(self, name: str, request: str, created_at: float, keep_seconds: float) -> None:
        """Tidies up after a run's end: nobody looks after it any more, and its request id is kept as long as it is."""
        ...

    async def renew(self, leases: Sequence[Lease], lease_seconds: float, keep_seconds: float) -> list[Outcome]:
        """Renews leases; of runs that have ended, only says what is there."""
        ...

    async def expired(self, most: int) -> list[str]:
        """Returns the names of runs whose lease seems to be over, at most so many."""
        ...

    async def take(self, name: str, owner: str, lease_seconds: float, least_epoch: int = 0) -> Stored | None:
        """Makes a gateway the writer of a run whose lease is over. None if it is not, or the run has ended or is gone.

        What is returned is the run as it is from then on, with an epoch above all others and not below the least one.
        """
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Lets runs go, and tells all gateways. Their writers cannot write them any more."""
        ...

    async def load(self, name: str) -> Stored | None:
        """Returns a run, or None."""
        ...

    async def read(self, name: str, after: str) -> list[Entry]:
        """Returns the entries after a place, all of them."""
        ...

    async def known(self, tenant: str) -> list[str]:
        """Returns the ids of a tenant's runs, newest first."""
        ...

    async def cancel(self, name: str) -> Stored | None:
        """Notes that a run shall be cancelled, and returns it, or None."""
        ...

    async def attend(self, names: Sequence[str], gateway: str, seconds: float) -> list[bool]:
        """Says that runs have readers at a gateway, for so many seconds. Returns which of the runs are there."""
        ...

    async def leave(self, name: str, gateway: str) -> str:
        """Says that a run has no readers at a gateway. Returns its writer if nobody else reads, else nothing."""
        ...

    async def attended(self, name: str, gateway: str) -> bool:
        """Returns whether a run has readers at other gateways than this one."""
        ...

    async def post(self, gateway: str, message: Message) -> None:
        """Sends a message to a gateway."""
        ...

    async def listen(self, gateway: str, places: Mapping[str, str], own: str, shared: str, seconds: float) -> Heard:
        """Waits until a run has entries after its place, or there are messages, but not longer than so many seconds.

        Args:
            gateway: whose messages.
            places: the last entry known of each run.
            own: up to where messages to the gateway were heard; `shared` those to all, empty: from now on.
            seconds: to wait.
        """
        ...

    async def close(self) -> None:
        """Lets go of the store."""
        ...
