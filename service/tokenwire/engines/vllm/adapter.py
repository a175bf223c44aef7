"""vLLM as an engine."""

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from tokenwire.domain.errors import EngineError, Violation
from tokenwire.domain.generation import Generated, Job, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Tokenizer
from tokenwire.engines.exchange import ReadPayloads
from tokenwire.engines.failure import cut
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.openai.models import infos, listed_models
from tokenwire.engines.openai.request import CHAT_PATH
from tokenwire.engines.remote import RemoteEngine, told
from tokenwire.engines.status import Load, ModelInfo
from tokenwire.engines.support import column
from tokenwire.engines.vllm.blame import blamed_field, constraint_refused
from tokenwire.engines.vllm.logprobs import NamedLogprobs, prompt_logprobs
from tokenwire.engines.vllm.metrics import load
from tokenwire.engines.vllm.reader import Reader
from tokenwire.engines.vllm.request import endpoint_and_body, is_whole
from tokenwire.engines.vllm.server import Server, ask_server
from tokenwire.engines.vllm.tokenizer import VllmTokenizer
from tokenwire.engines.vllm.vetting import COMPLETION_TOKENS_DEFAULT
from tokenwire.engines.vllm.vetting import vet as vet_request
from tokenwire.engines.vllm.vocabulary import Vocabulary


def _random() -> str:
    return secrets.token_hex(16)


class VllmEngine(RemoteEngine):
    """An engine behind vLLM's HTTP API, of its Python or its Rust front end.

    Args:
        random: makes request ids and salts that nobody can guess; letters and digits.
        options: those of RemoteEngine.
    """

    kind = "vllm"
    # The other two count the answer alone.
    carries = frozenset({"repetition_penalty"})

    def __init__(self, *, random: Callable[[], str] = _random, **options: Any) -> None:
        super().__init__(**options)
        self._random = random
        self._vocabulary = Vocabulary(self._upstream, self._first_model)
        self.tokenizer: Tokenizer | None = VllmTokenizer(self._vocabulary, lambda: self.server)
        # What is known of the server, and whether that is all.
        self.server = Server()
        self._known = False
        # Whether it has an endpoint to abort requests; it is taken to have one until it says that it has not.
        self._aborts = True

    async def ask(self) -> tuple[ModelInfo, ...]:
        """Returns the models of a server that is ready, notes how busy it is, and asks a new one what it is."""
        try:
            await self._upstream.get("/health")
            models = await listed_models(self._upstream)
            if not self._known and models:
                model = self._model or models[0].id
                self._aborts = True
                self.server, self._known = await ask_server(self._upstream, models, model)
                self.fields = self.server.fields(column(self.kind))
        except EngineError:
            # It may come back as another one.
            self._known = False
            raise
        self.status.load = await self._load()
        return infos(models)

    def vet(self, submission: Submission) -> None:
        """Refuses values and combinations that this vLLM does not have."""
        vet_request(submission, self.server)

    def answer_limit(self, submission: Submission) -> int | None:
        """Returns vLLM's own limit of a completion."""
        return None if submission.messages else COMPLETION_TOKENS_DEFAULT

    async def generate(self, job: Job, tell: Tell) -> None:
        """Tells what the engine writes. When it is cancelled it stops the engine's work."""
        submission, server = job.submission, self.server
        request_id = self._random()
        path, body = endpoint_and_body(job, server, request_id=request_id, own_salt=self._random())
        asked = submission.output.logprobs
        logprobs = None if asked is None else NamedLogprobs(asked, self._vocabulary)
        answer = Answer(
            submission.n,
            logprobs=None if logprobs is None else logprobs.read,
            stop=submission.stopping.stop,
            stop_token_ids=submission.stopping.stop_token_ids,
            max_tokens=submission.stopping.max_tokens,
            context_window=self._window(job.model),
        )
        reader = Reader(answer, submission, server)
        take = told(reader.read if reader.mends else answer.read, tell)
        try:
            if is_whole(submission):
                tell(await self._whole(path, body, submission, reader, logprobs))
            elif logprobs is None:
                await self._upstream.tell(path, body, take, job.headers)
            else:
                await self._learning(logprobs, self._upstream.events(path, body, job.headers), take)
        except EngineError as error:
            if _is_width_refused(error, submission):
                raise _width_refused(error) from error
            if server.rust and not reader.wrote and error.reason == "ENGINE_FAILED":
                await self._blame(body, submission, error)
            raise
        except BaseException:
            # Cancelled, or `tell` has enough. The closed connection says it already, where nothing holds it open.
            if not answer.done and self._aborts and submission.sampling.beam_search is None:
                self.leave(self._abort(_engine_id(path, request_id, server)))
            raise
        if not answer.done:
            raise cut()

    @staticmethod
    async def _learning(logprobs: NamedLogprobs, reads: AsyncGenerator[list[bytes], None], take: ReadPayloads) -> None:
        """Takes each read once the texts of its tokens are known."""
        async with aclosing(reads):
            async for payloads in reads:
                for payload in payloads:
                    await logprobs.learn(payload)
                if take(payloads):
                    return

    async def _whole(
        self, path: str, body: dict[str, Any], submission: Submission, reader: Reader, logprobs: NamedLogprobs | None
    ) -> list[Generated]:
        payload = msgspec.json.encode(await self._upstream.post(path, body, patient=True))
        if logprobs is not None:
            await logprobs.learn(payload)
        batch: list[Generated] = []
        reader.read_whole(payload, batch)
        asked = submission.output.prompt_logprobs
        if asked is not None:
            # After the tokens that they are about, before all text.
            batch.insert(1, await prompt_logprobs(payload, asked, self._vocabulary))
        return batch

    async def _blame(self, body: dict[str, Any], submission: Submission, error: EngineError) -> None:
        try:
            field = await blamed_field(self._upstream, body, submission)
        except EngineError:
            # Then it rather failed by itself.
            return
        if field is not None:
            raise constraint_refused(field) from error

    async def _abort(self, engine_id: str) -> None:
        # Never an empty list: that aborts everybody's requests.
        try:
            await self._upstream.post("/abort_requests", {"request_ids": [engine_id]})
        except EngineError as error:
            if error.reason == "UPSTREAM_PROTOCOL":
                # Only some servers have the endpoint.
                self._aborts = False

    async def _load(self) -> Load | None:
        try:
            return load(await self._upstream.text("/metrics"))
        except EngineError:
            return None

    def _first_model(self) -> str:
        return next((model.name for model in self.status.models), "")

    def _window(self, model: str) -> int | None:
        return next((one.context_window for one in self.status.models if one.name == model), None)


def _engine_id(path: str, request_id: str, server: Server) -> str:
    if path == CHAT_PATH:
        return f"chatcmpl-{request_id}"
    # The Python front end counts the prompts of a completion.
    return f"cmpl-{request_id}" if server.rust else f"cmpl-{request_id}-0"


def _is_width_refused(error: EngineError, submission: Submission) -> bool:
    # A beam search asks for log probabilities itself, twice as many as it has beams.
    beams, logprobs = submission.sampling.beam_search, submission.output.logprobs
    return beams is not None and logprobs is None and [one.field for one in error.violations] == ["output.logprobs"]


def _width_refused(error: EngineError) -> EngineError:
    violation = Violation(field="sampling.beam_search.width", description="refused by the engine")
    return EngineError(error.code, error.reason, error.message, violations=(violation,))
