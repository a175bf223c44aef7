"""Log probabilities as SGLang tells them, in lists beside each other, as domain values."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenwire.domain.events import TokenLogprob
from tokenwire.domain.request import Logprobs, Output
from tokenwire.engines.failure import garbled
from tokenwire.engines.sglang.choice import Step, fresh
from tokenwire.engines.sglang.wire import Meta, Scored

_Lists = Sequence[list[Scored] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one request to `/generate` asks for: one figure and one set of ids for prompt and answer together."""

    top_n: int
    token_ids: tuple[int, ...]


def asked(output: Output) -> Asked | None:
    """Returns what must be asked for so that prompt and answer both have what they shall tell; None: nothing."""
    wanted = [one for one in (output.logprobs, output.prompt_logprobs) if one is not None]
    if not wanted:
        return None
    ids = dict.fromkeys(token_id for one in wanted for token_id in one.token_ids)
    return Asked(top_n=max(one.top_n or 0 for one in wanted), token_ids=tuple(ids))


def of_prompt(meta: Meta, wanted: Logprobs) -> tuple[TokenLogprob, ...]:
    """Returns those of the prompt's tokens, if the event tells them."""
    return _joined(
        meta.input_token_logprobs or (), meta.input_top_logprobs or (), meta.input_token_ids_logprobs or (), wanted
    )


def of_step(meta: Meta, step: Step, wanted: Logprobs) -> tuple[TokenLogprob, ...]:
    """Returns those of an event's new tokens. Raises EngineError if it does not tell them all."""
    if step.first == step.end:
        return ()
    chosen = fresh(meta.output_token_logprobs or (), step.first, step.end)
    top = fresh(meta.output_top_logprobs or (), step.first, step.end) if wanted.top_n else ()
    given = fresh(meta.output_token_ids_logprobs or (), step.first, step.end) if wanted.token_ids else ()
    return _joined(chosen, top, given, wanted)


def _joined(chosen: Sequence[Scored], top: _Lists, given: _Lists, wanted: Logprobs) -> tuple[TokenLogprob, ...]:
    if chosen and ((wanted.top_n and len(top) != len(chosen)) or (wanted.token_ids and len(given) != len(chosen))):
        raise garbled()
    return tuple(
        TokenLogprob(
            token_id=token_id,
            token=text or "",
            logprob=logprob,
            top=_plain((top[place] or ())[: wanted.top_n]) if wanted.top_n else (),
            given=_picked(given[place] or (), wanted.token_ids) if wanted.token_ids else (),
        )
        for place, (logprob, token_id, text) in enumerate(chosen)
    )


def _plain(scored: Sequence[Scored]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token_id=token_id, token=text or "", logprob=logprob) for logprob, token_id, text in scored
    )


def _picked(scored: Sequence[Scored], token_ids: Sequence[int]) -> tuple[TokenLogprob, ...]:
    """Returns the entries of these ids, in their order: prompt and answer may have asked for different ones."""
    by_id = {one.token_id: one for one in _plain(scored)}
    return tuple(by_id[token_id] for token_id in token_ids if token_id in by_id)
