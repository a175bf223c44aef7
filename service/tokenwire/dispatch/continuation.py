"""What an engine is asked for, from what the journal holds."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tokenwire.dispatch.agreement import Agreement
from tokenwire.dispatch.answer_ids import AnswerIds, known_ids
from tokenwire.dispatch.carried import carried, refused_anywhere, refused_by
from tokenwire.dispatch.fields import refused_field
from tokenwire.dispatch.joint import Joint, stop_in
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.strand import Strand
from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import Continuation, Dispatched, FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Job, Piece, Prompt
from tokenwire.domain.request import Submission, engine_fields
from tokenwire.engines.engine import Engine
from tokenwire.engines.status import ModelInfo

# Renders a request's prompt by an engine's means.
Render = Callable[[Submission, Engine, ModelInfo], Awaitable[Prompt]]
# Asked for where nothing bounds an answer but an engine's own small default, which must not cut it.
UNBOUNDED_TOKENS = 4096


class UnfitError(Exception):
    """This engine cannot go on with the run; another one may. `field` says why not."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class NotContinuableError(UnfitError):
    """No engine can go on with the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run goes on at one engine.

    Attributes:
        by: told to the readers; BY_TEXT if any choice goes on so.
        strands: one for each choice that is to be written.
        ended: the ends of choices that have all that they may have, with what is still to be written of them.
        again: for each choice how many tokens the journal has that come again.
    """

    by: Continuation
    strands: tuple[Strand, ...]
    ended: tuple[Generated, ...]
    again: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    strand: Strand | None = None
    ended: tuple[Generated, ...] = ()
    by: Continuation = Continuation.BY_TOKENS
    again: int = 0


class Planner:
    """Plans continuations.

    Args:
        engines: returns the engine of a name, or None if there is none any more.
        render: renders a prompt.
        agreement: knows which engines read text as the same tokens.
    """

    def __init__(self, engines: Callable[[str], Engine | None], render: Render, agreement: Agreement) -> None:
        self._engines = engines
        self._render = render
        self._agreement = agreement

    async def plan(self, run: Run, engine: Engine, *, streamed: bool, rendered: bool) -> Plan:
        """Returns how a run with text goes on at an engine.

        Args:
            run: the run.
            engine: the engine.
            streamed: whether a streaming RPC may have asked for it.
            rendered: whether this process knows for which engine the run's prompt was rendered.

        Raises UnfitError, or EngineError if the engine does not answer, or InvalidRequestError if it does not take the
        request.
        """
        field = refused_anywhere(run.submission, run.log)
        if field is not None:
            raise NotContinuableError(field)
        field = refused_by(engine, run.submission.sampling)
        if field is not None:
            raise UnfitError(field)
        prompt = run.prompt.token_ids or tuple(run.writer.prompt.token_ids) or run.submission.prompt_ids
        if not prompt and await self._agreed(run, engine):
            # The process that was told is gone; an engine that agrees makes the same of it.
            prompt = await self._own_prompt(run, engine)
        same = bool(prompt) and await self._reads_alike(run, engine, prompt, rendered=rendered)
        parts = [await self._part(run, engine, choice, prompt if same else ()) for choice in run.writer.open_choices]
        strands = tuple(part.strand for part in parts if part.strand is not None)
        for strand in strands:
            field = refused_field(engine_fields(strand.job.submission), engine, streamed=streamed)
            if field is not None:
                raise UnfitError(field)
            engine.vet(replace(strand.job.submission, model=run.model))
        texts = any(part.strand is not None and part.by is Continuation.BY_TEXT for part in parts)
        return Plan(
            by=Continuation.BY_TEXT if texts else Continuation.BY_TOKENS,
            strands=strands,
            ended=tuple(item for part in parts for item in part.ended),
            again={part.strand.choice: part.again for part in parts if part.strand is not None},
        )

    async def _reads_alike(self, run: Run, engine: Engine, prompt_ids: Sequence[int], *, rendered: bool) -> bool:
        """Whether the tokens in the journal are this engine's too."""
        if engine.tokenizer is None or "prompt_ids" not in engine.fields:
            return False
        vocabulary = engine.status.model(run.model).vocabulary
        if vocabulary is not None and max(prompt_ids) >= vocabulary:
            return False
        agreed = await self._agreed(run, engine)
        given = bool(run.submission.prompt_ids)
        if agreed and (rendered or given):
            return True
        # The engine before may have died before it could be asked, or the prompt may be another one's. That both make
        # the same of the prompt, says it too.
        return (
            not given
            and (agreed or len(_sources(run)) == 1)
            and tuple(prompt_ids) == await self._own_prompt(run, engine)
        )

    async def _agreed(self, run: Run, engine: Engine) -> bool:
        """Whether all engines that wrote the run are known to read text as this one does."""
        if engine.tokenizer is None or "prompt_ids" not in engine.fields:
            return False
        sources = [self._engines(name) for name in _sources(run)]
        return all([one is not None and await self._agreement.agree(one, engine) for one in sources])

    async def _own_prompt(self, run: Run, engine: Engine) -> tuple[int, ...]:
        """Returns the tokens of the run's prompt as this engine reads it; none if it does not tell."""
        if run.submission.prompt_ids:
            return run.submission.prompt_ids
        if engine.tokenizer is None:
            return ()
        return (await engine.tokenizer.prompt(replace(run.submission, model=run.model))).token_ids

    async def _part(self, run: Run, engine: Engine, choice: int, prompt_ids: Sequence[int]) -> _Part:
        submission, stopping = run.submission, run.submission.stopping
        log = run.log.channel(Channel(choice))
        text = log.text.decode().removeprefix(run.writer.echo) if log is not None else ""
        written = await _written(run, engine, choice, text)
        known: AnswerIds | None = None
        if prompt_ids and engine.tokenizer is not None:
            ids = log.token_ids.tolist() if log is not None else []
            known = await known_ids(ids, text, prompt_ids, engine.tokenizer, stopping.stop)
        again = known.again if known is not None else 0
        # Tokens that come again do not count twice.
        written -= again
        pending = known.pending if known is not None else ""
        ended = self._ended(run, choice, text, pending, written)
        if ended:
            return _Part(ended=ended)
        limit = self._limit(run)
        left = None if limit is None else limit - written
        asked = carried(submission, engine, choice=choice, written=written, left=left)
        if known is not None:
            prompt = _of_ids((*prompt_ids, *known.ids))
            by, answer_tokens = Continuation.BY_TOKENS, len(known.ids)
        else:
            prompt = await self._by_text(run, engine, text)
            by, answer_tokens = Continuation.BY_TEXT, written
        window = engine.status.model(run.model).context_window
        if window is not None and prompt.tokens is not None and prompt.tokens >= window:
            if engine.name not in _sources(run):
                raise UnfitError("context_window")
            return _Part(ended=(ChoiceDone(choice=choice, finish_reason=FinishReason.LENGTH),))
        asked = _with_prompt(_bounded(asked, prompt, engine, window), prompt)
        job = Job(run_id=f"{run.id}-{choice}", model=run.model, submission=asked, prompt=prompt)
        joint = Joint(
            text,
            stopping.stop,
            include_stop=bool(stopping.include_stop),
            pending=pending,
            min_tokens=asked.stopping.min_tokens or 0,
        )
        return _Part(strand=Strand(choice, job, joint, answer_tokens), by=by, again=again)

    def _ended(self, run: Run, choice: int, text: str, pending: str, written: int) -> tuple[Generated, ...]:
        """Returns the end of a choice that has all it may have, whose engine was lost before it could say so."""
        stopping, limit = run.submission.stopping, self._limit(run)
        whole = text + pending
        # What is out ends with a stop string only where they are told.
        found = stop_in(whole, stopping.stop, len(text) - bool(stopping.include_stop))
        if found is not None and written >= (stopping.min_tokens or 0):
            end, stop = found
            rest = whole[len(text) : end if stopping.include_stop else end - len(stop)]
            done = ChoiceDone(choice=choice, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=stop)
            return (Piece(channel=Channel(choice), text=rest, token_count=0), done) if rest else (done,)
        if limit is not None and written >= limit:
            done = ChoiceDone(choice=choice, finish_reason=FinishReason.LENGTH)
            return (Piece(channel=Channel(choice), text=pending, token_count=0), done) if pending else (done,)
        return ()

    def _limit(self, run: Run) -> int | None:
        """Returns how many tokens a choice may have: what was asked for, or the first engine's own way."""
        asked = run.submission.stopping.max_tokens
        if asked is not None:
            return asked
        first = self._engines(next(iter(_sources(run)), ""))
        if first is None:
            return None
        if first.default_max_tokens is not None:
            return first.default_max_tokens
        with suppress(EngineError):
            return first.answer_limit(run.submission)
        return None

    async def _by_text(self, run: Run, engine: Engine, text: str) -> Prompt:
        """Returns the prompt with the answer so far, by this engine's own means."""
        submission = run.submission
        if submission.prompt is not None:
            asked = replace(Submission(prompt=submission.prompt + text), model=run.model)
            return await self._render(asked, engine, engine.status.model(run.model))
        if "prompt_ids" not in engine.fields or engine.tokenizer is None:
            raise UnfitError("prompt_ids" if submission.prompt_ids else "messages")
        prompt_ids = await self._own_prompt(run, engine)
        if not prompt_ids:
            raise UnfitError("messages")
        return _of_ids((*prompt_ids, *(await engine.tokenizer.answer_ids(text) if text else ())))


def _sources(run: Run) -> dict[str, None]:
    """Returns the names of the engines that wrote what the journal has, or may have; the first one first."""
    names: dict[str, None] = {}
    for marked in run.log.markers:
        if isinstance(marked.marker, Dispatched):
            if marked.marker.continuation is Continuation.FIRST:
                names.clear()
            names[marked.marker.engine] = None
    return names


async def _written(run: Run, engine: Engine, choice: int, text: str) -> int:
    """Returns how many tokens a choice has; where no engine told, as many as this one makes of its text."""
    log = run.log.channel(Channel(choice))
    if log is None or not text:
        return 0
    if log.tokens[-1]:
        return log.tokens[-1]
    if engine.tokenizer is not None:
        return len(await engine.tokenizer.answer_ids(text))
    # Engines that do not tell write a token at a time.
    return len(log.seqs)


def _of_ids(ids: tuple[int, ...]) -> Prompt:
    return Prompt(token_ids=ids, tokens=len(ids))


def _with_prompt(submission: Submission, prompt: Prompt) -> Submission:
    if prompt.text is not None:
        return replace(submission, prompt=prompt.text)
    return replace(submission, prompt_ids=prompt.token_ids)


def _bounded(submission: Submission, prompt: Prompt, engine: Engine, window: int | None) -> Submission:
    """Sets a limit where an engine takes an unset one for a smaller one than the run has."""
    if submission.stopping.max_tokens is not None:
        return submission
    if window is not None and prompt.tokens is not None:
        most = window - prompt.tokens
    elif engine.default_max_tokens is not None or engine.answer_limit(submission) is not None:
        most = UNBOUNDED_TOKENS
    else:
        return submission
    return replace(submission, stopping=replace(submission.stopping, max_tokens=most))
