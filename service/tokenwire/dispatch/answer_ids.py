"""Which of an answer's tokens an engine can go on from."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenwire.dispatch.joint import stop_in
from tokenwire.engines.engine import Tokenizer
from tokenwire.journal.log import UNKNOWN_ID

# How many tokens are cut back at most; a longer stretch without text is no hold-back.
CUT_MAX = 64
# The end of a prompt, to read an answer behind it: at the beginning of a text some tokenizers leave a space out.
_CONTEXT = 8
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerIds:
    """The tokens to go on from.

    Attributes:
        ids: they; their text is the answer's, and `pending`.
        again: how many tokens that the journal has are left out at the end, and come again.
        pending: text that the journal does not have yet, of tokens that it has: an engine had held it back.
    """

    ids: tuple[int, ...]
    again: int = 0
    pending: str = ""


async def known_ids(
    ids: Sequence[int], text: str, prompt_ids: Sequence[int], tokenizer: Tokenizer, stops: Sequence[str]
) -> AnswerIds | None:
    """Returns the tokens of an answer's text, by the means of the engine that shall go on, or None if they do not fit.

    Engines tell tokens before their text: while a character is unfinished, or while a stop string may be in the making.
    Tokens that end inside a character are cut back. What was held back for a stop string is told by its tokens, which
    the readers have: it is kept, as another engine might choose other ones. A longer text is none that an engine holds
    back, such as that of special tokens.

    Args:
        ids: all that the journal has.
        text: what the journal has.
        prompt_ids: what comes before.
        tokenizer: that of the engine that shall go on.
        stops: the request's stop strings.
    """
    if UNKNOWN_ID in ids:
        return None
    if not text:
        return AnswerIds(ids=(), again=len(ids))
    held_back = max((len(stop) for stop in stops), default=0)
    context = tuple(prompt_ids[-_CONTEXT:])
    before: str | None = None
    for end in range(len(ids), max(-1, len(ids) - CUT_MAX - 1), -1):
        told = await tokenizer.detokenize(ids[:end]) if end else ""
        if not told.startswith(text) and context:
            before = await tokenizer.detokenize(context) if before is None else before
            whole = await tokenizer.detokenize((*context, *ids[:end]))
            told = whole.removeprefix(before) if whole.startswith(before) else told
        if not told.startswith(text):
            return None
        pending = told[len(text) :]
        kept = len(pending) < held_back or stop_in(told, stops, len(text)) is not None
        if not pending or (kept and _REPLACEMENT not in pending):
            return AnswerIds(ids=tuple(ids[:end]), again=len(ids) - end, pending=pending)
    return None
