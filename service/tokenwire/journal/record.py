"""What is kept of a run beside its events: all that another process needs to go on with it."""

from dataclasses import dataclass

import msgspec

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it was accepted.

    Attributes:
        run_id: made by the server.
        tenant: whose it is.
        model: its name at the engines.
        submission: the whole request.
        prompt: as it was rendered.
        share: bytes of the journal that are reserved for it.
        grace: seconds it goes on without a reader; None: to its end.
        created_at: wall-clock seconds.
        max_duration: seconds from then to its end, at most.
        retention: seconds for which it is kept after its end.
        traceparent: where it stands in a trace, as W3C writes it; empty: in none, or in a record of an older version.
    """

    run_id: str
    tenant: str
    model: str
    submission: Submission
    prompt: Prompt
    share: int
    grace: float | None
    created_at: float
    max_duration: float
    retention: float
    traceparent: str = ""


class DamagedError(Exception):
    """What was kept cannot be read, or does not fit to what came before."""


def encode_record(record: RunRecord) -> bytes:
    """Returns a record's bytes."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> RunRecord:
    """Reads a record. Raises DamagedError."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedError("a run's record cannot be read") from error


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RunRecord)
