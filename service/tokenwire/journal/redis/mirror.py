"""A run that another gateway writes, or wrote, as it is read here."""

from collections.abc import Sequence

from tokenwire.journal.log import RunLog
from tokenwire.journal.record import DamagedError, RunRecord
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.store import BEGINNING, Entry, Store, Stored


class Mirror:
    """A copy of a run's log that follows the store.

    Attributes:
        name: the run's.
        record: as it was accepted.
        log: what is known of it.
        place: the last entry known.
        share: bytes reserved for it.
        ended_at: wall-clock seconds of its end, if it had ended when it was read.
    """

    def __init__(self, name: str, record: RunRecord, epoch: int, codec: Codec) -> None:
        self.name = name
        self.record = record
        self.log = RunLog(sink=_nobody, epoch=epoch)
        self.place = BEGINNING
        self.share = record.share
        self.ended_at: float | None = None
        self._codec = codec

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.record.run_id

    async def catch_up(self, store: Store, stored: Stored) -> None:
        """Reads what the store has. `stored` is the run as it was just before.

        Raises DamagedError if that is not what was read before, or cannot be read.
        """
        if not self.feed(await store.read(self.name, self.place)):
            await self.read_again(store, stored)
        if self.log.head < stored.head:
            raise DamagedError("the end of a run's log is not there")
        self._learn(stored)

    def feed(self, entries: Sequence[Entry]) -> bool:
        """Appends entries. Returns whether they follow what is known; if not, it must be read again.

        Raises DamagedError if they cannot be read.
        """
        log = self.log
        for entry in entries:
            if _sortable(entry.place) <= _sortable(self.place):
                continue
            if entry.first != log.head + 1 or entry.epoch != log.epoch:
                # Another writer's, or a store's that had lost the run, or its end, and has it again in other frames.
                # That it fits by its number alone does not say that it goes on from what is known (docs/model).
                return False
            self._codec.apply(self.name, log, entry)
            self.place = entry.place
        if log.head > log.committed:
            log.publish(log.head)
        return True

    async def read_again(self, store: Store, stored: Stored) -> None:
        """Reads the run from its beginning and goes on where this copy ends. Raises DamagedError as `catch_up`."""
        entries = await store.read(self.name, BEGINNING)
        whole = RunLog()
        for entry in entries:
            self._codec.apply(self.name, whole, entry)
        log = self.log
        rewritten = any(epoch > (log.epoch or 0) and head < log.head for epoch, head in stored.takeovers)
        older = stored.lease.epoch < (log.epoch or 0)
        if older or rewritten or not _agree(log, whole):
            raise DamagedError("what was read of a run was lost, and it went on otherwise")
        if whole.head > log.head:
            self._codec.apply(self.name, log, _rest(self._codec, self.name, whole, log.head))
            log.publish(log.head)
        self.place = entries[-1].place if entries else BEGINNING
        self._learn(stored)

    def _learn(self, stored: Stored) -> None:
        if stored.lease.epoch >= (self.log.epoch or 0):
            self.log.takeovers = list(stored.takeovers)
            self.log.epoch = stored.lease.epoch


def _nobody(log: RunLog) -> None:
    """Whoever writes this log is elsewhere."""


def _rest(codec: Codec, name: str, whole: RunLog, after: int) -> Entry:
    frame = codec.frame(name, whole, after)
    return Entry(place="", first=after + 1, last=whole.head, epoch=0, frame=frame)


def _agree(one: RunLog, other: RunLog) -> bool:
    """Whether one of two logs is the beginning of the other, as far as their texts tell."""
    for channel in one.channels:
        found = other.channel(channel.channel)
        upto = min(one.head, other.head)
        mine = channel.text[: channel.consumed_at(upto)[1]]
        if mine and (found is None or found.text[: found.consumed_at(upto)[1]] != mine):
            return False
    return True


def _sortable(place: str) -> tuple[int, int]:
    last, _, again = place.partition("-")
    return int(last), int(again or 0)
