"""How long runs live."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long runs live, in seconds.

    Args:
        orphan_grace: without a reader, where the request does not say.
        orphan_grace_max: the most a request may ask for.
        retention: after the end.
        max_duration: in all, at most.
        cancelled_ids: how many request ids that were cancelled in advance are kept for a tenant; 0: such a cancel finds
            nothing.
        stop: that an engine may take to stop a run; it is then torn out of it.
        resume: without a reader, at least, where the server lost or left the last one.
    """

    orphan_grace: float
    orphan_grace_max: float
    retention: float
    max_duration: float
    cancelled_ids: int
    stop: float
    resume: float = 30.0
