"""Records of runs, for tests that care little about them."""

from tokenwire.domain.generation import Prompt
from tokenwire.domain.request import RunOptions, Submission
from tokenwire.journal.record import RunRecord


def record(
    run_id: str = "run",
    share: int = 4000,
    *,
    tenant: str = "local",
    request_id: str = "",
    prompt: str = "a prompt",
    created_at: float = 0.0,
    retention: float = 300.0,
    grace: float | None = None,
    submission: Submission | None = None,
) -> RunRecord:
    """Returns the record of a run as a server would have accepted it."""
    return RunRecord(
        run_id=run_id,
        tenant=tenant,
        model="test-model",
        submission=submission or Submission(prompt=prompt, run=RunOptions(request_id=request_id)),
        prompt=Prompt(text=prompt),
        share=share,
        grace=grace,
        created_at=created_at,
        max_duration=600.0,
        retention=retention,
    )
