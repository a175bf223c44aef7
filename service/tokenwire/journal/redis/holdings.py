"""The runs that a gateway has in hand, and the memory that they take."""

from collections.abc import Callable

import structlog

from tokenwire.domain.errors import TokenwireError
from tokenwire.journal.journal import Keeper
from tokenwire.journal.log import RunLog
from tokenwire.journal.redis.codec import small
from tokenwire.journal.redis.mirror import Mirror
from tokenwire.journal.redis.writing import Writing
from tokenwire.journal.room import Room

_log = structlog.get_logger()


class Holdings:
    """What a gateway writes and what it follows, by the ids of the runs.

    Args:
        max_bytes: of all logs together.

    Attributes:
        writings: runs that this gateway writes, or wrote to their end.
        mirrors: runs of other gateways.
        room: the memory; finished runs give their text up when it is short, for the store has it.
        on_unfollowed: is told of a run that is not followed any more.
    """

    keeper: Keeper

    def __init__(self, max_bytes: int) -> None:
        self.writings: dict[str, Writing] = {}
        self.mirrors: dict[str, Mirror] = {}
        self.room = Room(max_bytes, on_drop=self.lose)
        self.on_unfollowed: Callable[[str], None] = lambda name: None

    def name(self, run_id: str) -> str:
        """Returns a run's name, or nothing if it is not in hand."""
        held = self.writings.get(run_id) or self.mirrors.get(run_id)
        return held.name if held else ""

    def lose(self, run_id: str) -> None:
        """Lets a run go: another gateway writes it, or it has to be read again. Its readers come back."""
        self.drop(run_id)
        self.keeper.lose(run_id)

    def drop(self, run_id: str) -> None:
        """Forgets a run without a word."""
        writing, mirror = self.writings.pop(run_id, None), self.mirrors.pop(run_id, None)
        if writing is not None:
            writing.gone = True
            writing.log.sink_into(_nowhere)
        if mirror is not None:
            mirror.log.sink_into(_nowhere)
            self.on_unfollowed(mirror.name)
        self.room.free(run_id)

    def settle(self, writing: Writing) -> None:
        """Replaces the share of a run that has ended, and that the store has, by what it really holds."""
        if writing.settled and writing.complete and self.writings.get(writing.run_id) is writing:
            writing.record = small(writing.record)
            self.room.settle(writing.run_id, _Finished(writing.log))

    def feed(self, mirror: Mirror) -> None:
        """Makes room for a mirror that has grown; where there is none, it is lost."""
        if mirror.log.closed:
            self.room.settle(mirror.run_id, _Finished(mirror.log))
        elif mirror.log.size > mirror.share:
            mirror.share = max(2 * mirror.share, mirror.log.size)
            try:
                self.room.reserve(mirror.run_id, mirror.share)
            except TokenwireError:
                _log.warning("no room to follow a run of another server", run_id=mirror.run_id)
                self.lose(mirror.run_id)


class _Finished:
    """A log whose memory can be had as a whole: whoever reads the run then reads it from the store."""

    def __init__(self, log: RunLog) -> None:
        self._log: RunLog | None = log

    @property
    def size(self) -> int:
        return self._log.size if self._log is not None else 0

    @property
    def text_size(self) -> int:
        return self.size

    def drop(self) -> None:
        self._log = None


def _nowhere(log: RunLog) -> None:
    """What is appended to a run that was let go does not count."""
