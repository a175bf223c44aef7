"""Runs as bytes in the shared store: sealed, if there is a key."""

from dataclasses import replace

from tokenwire.domain.generation import Prompt
from tokenwire.journal.frames import apply_frame, encode_frame
from tokenwire.journal.log import RunLog
from tokenwire.journal.record import RunRecord, decode_record, encode_record
from tokenwire.journal.redis.store import Entry
from tokenwire.journal.sealing import Sealer


class Codec:
    """Encodes and decodes. What belongs to one run cannot be read as another's.

    Args:
        sealer: encrypts; None: nothing is encrypted.
    """

    def __init__(self, sealer: Sealer | None = None) -> None:
        self._sealer = sealer

    def record(self, name: str, record: RunRecord) -> bytes:
        """Returns a record's bytes."""
        data = encode_record(record)
        return data if self._sealer is None else self._sealer.seal(data, _record_of(name))

    def read_record(self, name: str, data: bytes) -> RunRecord:
        """Reads a record. Raises DamagedError."""
        return decode_record(data if self._sealer is None else self._sealer.open(data, _record_of(name)))

    def frame(self, name: str, log: RunLog, after: int) -> bytes:
        """Returns a log's events above a number."""
        data = encode_frame(log, after)
        return data if self._sealer is None else self._sealer.seal(data, _log_of(name))

    def apply(self, name: str, log: RunLog, entry: Entry) -> None:
        """Appends an entry's events to a log, without waking anybody. Raises DamagedError."""
        apply_frame(log, entry.frame if self._sealer is None else self._sealer.open(entry.frame, _log_of(name)))


def small(record: RunRecord) -> RunRecord:
    """Returns what is kept of a record once its run has ended: what only an engine needs is left out."""
    asked = replace(record.submission, prompt=None, prompt_ids=(), messages=(), tools=(), constraint=None)
    return replace(record, prompt=Prompt(), submission=asked)


def _record_of(name: str) -> bytes:
    return f"{name}:run".encode()


def _log_of(name: str) -> bytes:
    return f"{name}:log".encode()
