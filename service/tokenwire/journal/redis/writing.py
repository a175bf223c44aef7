"""A run that this gateway writes."""

from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord
from tokenwire.journal.redis.codec import Codec, small
from tokenwire.journal.redis.names import request_name, run_name
from tokenwire.journal.redis.store import Append, Ending, Lease, NewRun

# Kept so much longer than the longest it can last, if its writer dies and nobody takes it over.
SPARE_SECONDS = 60.0


class Writing:
    """A run, and how much of it the store has.

    Attributes:
        record: as it was accepted; once it is settled, without what only an engine needs.
        log: its events.
        lease: what this gateway writes it by.
        created: whether the store has it.
        kept: the number of the last event that the store has.
        ended_at: wall-clock seconds of its end.
        settled: whether its share is to be what it really holds.
        cancel_told: whether it was told that a client wants it cancelled.
        finished: whether the store has tidied up after it.
        gone: whether this gateway has let it go.
        run_id: the run's id.
        name: the run's name in the store.
        keep_seconds: how long the store keeps it if nobody renews the lease.
    """

    __slots__ = (
        "_kept_ends",
        "cancel_told",
        "created",
        "ended_at",
        "finished",
        "gone",
        "keep_seconds",
        "kept",
        "lease",
        "log",
        "name",
        "record",
        "run_id",
        "settled",
    )

    def __init__(self, record: RunRecord, log: RunLog, owner: str, epoch: int, *, created: bool) -> None:
        self.run_id = record.run_id
        self.name = run_name(record.tenant, record.run_id)
        self.keep_seconds = record.max_duration + record.retention + SPARE_SECONDS
        self.record = record
        self.log = log
        self.lease = Lease(name=self.name, owner=owner, epoch=epoch)
        self.created = created
        self.kept = log.head
        self._kept_ends = len(log.choice_ends)
        self.ended_at: float | None = None
        self.settled = False
        self.cancel_told = False
        self.finished = False
        self.gone = False

    @property
    def request(self) -> str:
        """The name of the run's request id, or nothing."""
        return request_name(self.record.submission.run.request_id)

    @property
    def pending(self) -> bool:
        """Whether the store lacks something."""
        return not self.created or self.kept < self.log.head or self._kept_ends < len(self.log.choice_ends)

    @property
    def complete(self) -> bool:
        """Whether the run has ended and the store has all of it."""
        return self.log.closed and not self.pending

    def written(self, upto: int) -> None:
        """Notes that the store has the events up to a number; of a run that has ended, all else with them."""
        self.kept = upto
        if self.log.closed:
            self._kept_ends = len(self.log.choice_ends)

    def acknowledged(self, upto: int, ends: int) -> None:
        """As `written`, where the store knows how so many choices have ended."""
        self._kept_ends = ends
        self.written(upto)

    def missing(self) -> None:
        """Notes that the store has lost it: it gets everything again."""
        self.created = False
        self.kept = self._kept_ends = 0
        self.finished = False

    def new_run(self, codec: Codec, lease_seconds: float) -> NewRun:
        """Returns what the store needs to have the run, without its events."""
        return NewRun(
            lease=self.lease,
            request=self.request,
            record=codec.record(self.name, self.record),
            takeovers=tuple(self.log.takeovers),
            created_at=self.record.created_at,
            lease_seconds=lease_seconds,
            keep_seconds=self.keep_seconds,
        )

    def append(self, codec: Codec, lease_seconds: float, now: float) -> Append:
        """Returns what the store lacks. `now` in wall-clock seconds."""
        ending = None
        if self.log.closed:
            ending = Ending(
                at=now if self.ended_at is None else self.ended_at,
                record=codec.record(self.name, small(self.record)),
                keep_seconds=self.record.retention,
            )
        return Append(
            lease=self.lease,
            first=self.kept + 1,
            last=self.log.head,
            frame=codec.frame(self.name, self.log, self.kept),
            lease_seconds=lease_seconds,
            keep_seconds=self.keep_seconds,
            ending=ending,
        )
