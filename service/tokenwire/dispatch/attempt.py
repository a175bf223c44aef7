"""One attempt of a run: what an engine writes goes into the journal, and silence is noticed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from tokenwire.dispatch.deadlines import Deadlines
from tokenwire.dispatch.place import Place
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.strand import Strand
from tokenwire.dispatch.watchdog import Watchdog
from tokenwire.domain.errors import Code, EngineError, TokenwireError
from tokenwire.domain.events import Continuation, Dispatched
from tokenwire.domain.generation import Generated, Job, Piece, Pieces, taken_apart
from tokenwire.engines.failure import cut

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How long an engine may be silent in this attempt, and how long it may take to stop, in seconds."""

    first_token: float
    stall: float
    stop: float


class Attempt:
    """Has one engine write a run, or what is left of it.

    Args:
        run: the run.
        place: where.
        silence: when the engine counts as dead.
        grow: is called after each read, and makes room in the journal.
        answered: is called at the first token.
        deadlines: those of all watchdogs.
    """

    __slots__ = ("_answered", "_deadlines", "_grow", "_place", "_run", "_silence")

    def __init__(
        self,
        run: Run,
        place: Place,
        silence: Silence,
        grow: Callable[[], None],
        answered: Callable[[], None],
        deadlines: Deadlines[Watchdog],
    ) -> None:
        self._run = run
        self._place = place
        self._silence = silence
        self._grow = grow
        self._answered = answered
        self._deadlines = deadlines

    async def first(self, job: Job) -> None:
        """Writes the run from its beginning. Raises EngineError if the engine does not come to the end."""
        self._begin(Continuation.FIRST, {}, 1)
        await self._stream(job, None)
        if not self._run.writer.done:
            raise cut()

    async def going_on(self, strands: tuple[Strand, ...], by: Continuation, again: dict[int, int]) -> None:
        """Writes what is left of the run's choices, each as an answer of its own, side by side; raises as `first`.

        Args:
            strands: one for each choice.
            by: told to the readers.
            again: for each choice how many tokens that the journal has come again.
        """
        self._begin(by if self._run.writer.wrote_text else Continuation.FIRST, again, len(strands))
        if len(strands) == 1:
            await self._strand(strands[0])
            return
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._strand(strand), name=f"run {strand.job.run_id}") for strand in strands]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await self._end(tasks)
        failed = [task.exception() for task in tasks if not task.cancelled()]
        # The others were only cancelled. A bug goes before what an engine did.
        for error in sorted(filter(None, failed), key=lambda one: isinstance(one, TokenwireError)):
            raise error
        if any(strand.choice not in self._run.log.choice_ends for strand in strands):
            raise cut()

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Ends what still runs; an engine that hangs while it is closed is torn out of it."""
        left = {task for task in tasks if not task.done()}
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=self._silence.stop)

    def _begin(self, by: Continuation, again: dict[int, int], parts: int) -> None:
        run, engine = self._run, self._place.engine
        run.attempt += 1
        run.engine = engine
        now = run.elapsed_ms()
        if run.attempt == 1:
            run.scheduled_ms = now
        run.writer.begin(again, parts)
        run.writer.window = engine.status.model(run.model).context_window
        run.log.append(Dispatched(engine=engine.name, attempt=run.attempt, continuation=by), now)

    async def _strand(self, strand: Strand) -> None:
        await self._stream(strand.job, strand)
        if strand.choice not in self._run.log.choice_ends:
            raise cut()

    async def _stream(self, job: Job, strand: Strand | None) -> None:
        engine, silence = self._place.engine, self._silence
        # Inside: an engine that takes its time to close has answered all the same.
        watchdog = Watchdog(silence.first_token, _no_first_token, silence.stop, self._deadlines)
        hearing = _Hearing(self._run, strand, watchdog, silence, self._grow, self._answered)
        try:
            with watchdog:
                await engine.generate(job, hearing.tell)
        except _EnoughError:
            pass
        except _HangingError:
            _log.warning("an engine hung while it was stopped", engine=engine.name)
        finally:
            if strand is None:
                self._keep_prompt()

    def _keep_prompt(self) -> None:
        """Keeps the prompt's tokens as the engine told them: another one may have to go on from them."""
        told = self._run.writer.prompt.token_ids
        if told and not self._run.prompt.token_ids:
            self._run.prompt = replace(self._run.prompt, token_ids=tuple(told), tokens=len(told))


class _Hearing:
    """Takes what one engine tells. An object: a function with as many names around it takes four times the memory."""

    __slots__ = (
        "_answered",
        "_attempt",
        "_clock",
        "_grow",
        "_run",
        "_silence",
        "_strand",
        "_waiting",
        "_watchdog",
        "_writer",
    )

    def __init__(
        self,
        run: Run,
        strand: Strand | None,
        watchdog: Watchdog,
        silence: Silence,
        grow: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self._run = run
        self._writer = run.writer
        self._strand = strand
        self._watchdog = watchdog
        self._silence = silence
        self._grow = grow
        self._answered = answered
        self._attempt = run.attempt
        self._clock = asyncio.get_running_loop().time
        self._waiting = True

    def tell(self, batch: list[Generated]) -> None:
        """Writes one read into the journal. Raises _EnoughError once that is all that was asked for."""
        writer, strand, watchdog = self._writer, self._strand, self._watchdog
        if not self._waiting:
            watchdog.heard = self._clock()
        elif any(isinstance(item, Piece | Pieces) for item in batch):
            self._waiting = False
            watchdog.watch_for(self._silence.stall, _stalled)
            self._answered()
        writer.write(batch if strand is None else strand.take(taken_apart(batch)), self._attempt)
        if writer.log.size > self._run.share:
            self._grow()
        enough = writer.overrun and writer.done
        if strand is not None:
            enough = strand.cut or writer.was_cut(strand.choice)
        if enough:
            # From here on the engine has as long as it may take to stop.
            watchdog.watch_for(self._silence.stop, _HangingError)
            raise _EnoughError


class _EnoughError(Exception):
    """The engine has written all that was asked for, and goes on."""


class _HangingError(TokenwireError):
    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, "ENGINE_HANGS", "the engine hung while it was stopped")


def _no_first_token() -> TokenwireError:
    return EngineError(
        Code.DEADLINE_EXCEEDED, "FIRST_TOKEN_TIMEOUT", "the engine gave no token within the limit", retryable=True
    )


def _stalled() -> TokenwireError:
    return EngineError(
        Code.UNAVAILABLE, "ENGINE_STALLED", "the engine fell silent in the middle of its answer", retryable=True
    )
