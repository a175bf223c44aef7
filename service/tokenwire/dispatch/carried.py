"""A run's request as it is asked once more, for what is left of one choice."""

import hashlib
from dataclasses import replace

from tokenwire.domain.events import PromptTokens
from tokenwire.domain.request import ReasoningEffort, Sampling, Submission
from tokenwire.engines.engine import Engine
from tokenwire.journal.log import RunLog

# Above every request's own: a run that goes on does not queue behind new ones.
PRIORITY_MAX = 100
# Seeds that every engine takes.
_SEEDS = 2**31
# Of these an engine would have to know the counts so far, unless it counts the prompt's tokens as well.
_PENALTIES = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def refused_anywhere(submission: Submission, log: RunLog) -> str | None:
    """Returns the field whose effect no engine could take up in the middle of an answer, or None.

    A constraint's state and those of the parsers of tool calls and reasoning are inside the engine that was lost; the
    other beams of a search are as well.
    """
    if submission.constraint is not None:
        return "constraint"
    if submission.tools:
        return "tools"
    if submission.reasoning not in (None, ReasoningEffort.NONE):
        return "reasoning"
    if submission.sampling.beam_search is not None:
        return "sampling.beam_search"
    kinds = {channel.channel.kind.name for channel in log.channels}
    if kinds - {"TEXT"}:
        return "reasoning" if "REASONING" in kinds else "tools"
    told = any(isinstance(marked.marker, PromptTokens) for marked in log.markers)
    if submission.output.prompt_logprobs is not None and not told:
        return "output.prompt_logprobs"
    return None


def refused_by(engine: Engine, sampling: Sampling) -> str | None:
    """Returns the penalty that this engine would not go on with, or None."""
    for field, neutral in _PENALTIES.items():
        if getattr(sampling, field) not in (None, neutral) and field not in engine.carries:
            return f"sampling.{field}"
    return None


def carried(submission: Submission, engine: Engine, *, choice: int, written: int, left: int | None) -> Submission:
    """Returns the request for the rest of a choice; its prompt is still to be set.

    Args:
        submission: the run's own request.
        engine: the engine that goes on.
        choice: which choice.
        written: how many tokens it has.
        left: how many it may still get, or None.
    """
    sampling, stopping = submission.sampling, submission.stopping
    seed = sampling.seed
    min_tokens = max(0, (stopping.min_tokens or 0) - written) or None
    return replace(
        submission,
        prompt=None,
        prompt_ids=(),
        messages=(),
        tool_choice=None,
        parallel_tool_calls=None,
        reasoning=None,
        sampling=replace(sampling, n=None, seed=None if seed is None else derived_seed(seed, choice, written)),
        stopping=replace(stopping, max_tokens=left, min_tokens=min_tokens),
        output=replace(submission.output, echo=None, prompt_logprobs=None),
        run=replace(submission.run, priority=_priority(submission, engine)),
        after=None,
    )


def derived_seed(seed: int, choice: int, written: int) -> int:
    """Returns the seed with which a choice goes on: the same each time, and another one than before.

    With the very same seed the rest of an answer would be drawn with the chance of its beginning.
    """
    digest = hashlib.blake2b(f"{seed} {choice} {written}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % _SEEDS


def _priority(submission: Submission, engine: Engine) -> int | None:
    # Where it is not known to be looked at, it may be refused; a request that named one was taken with it.
    if engine.ranks or submission.run.priority:
        return PRIORITY_MAX
    return submission.run.priority
