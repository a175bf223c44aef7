"""SGLang as an engine."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, Job, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import cut, unreachable
from tokenwire.engines.remote import RemoteEngine, told
from tokenwire.engines.sglang import chat, request
from tokenwire.engines.sglang.answer import Answer
from tokenwire.engines.sglang.chat_answer import ChatAnswer
from tokenwire.engines.sglang.refusals import check_ids
from tokenwire.engines.sglang.refusals import vet as vet_request
from tokenwire.engines.sglang.replies import Loads, Model, Models, convert
from tokenwire.engines.sglang.rust import vet_rust
from tokenwire.engines.sglang.server import Server, ask_server, is_missing
from tokenwire.engines.sglang.tokenizer import SglangTokenizer
from tokenwire.engines.status import Load, ModelInfo


class SglangEngine(RemoteEngine):
    """An engine behind SGLang's HTTP API; arguments as those of RemoteEngine, and:

    Args:
        unique: makes names that nobody else has: of requests, and salts of those that shall not use cached prefixes.
    """

    kind = "sglang"
    takes_ids = True

    def __init__(self, *, unique: Callable[[], str] = lambda: uuid4().hex, **options: Any) -> None:
        super().__init__(**options)
        self._unique = unique
        # What was known last, and whether it still holds.
        self._server: Server | None = None
        self._known = False

    async def ask(self) -> tuple[ModelInfo, ...]:
        """Returns the models of a server that is ready; asks one that has come back what it is."""
        try:
            await self._ask_ready()
            listed = convert(await self._upstream.get("/v1/models"), Models).data
            if not self._known:
                self._server = await ask_server(self._upstream)
                self.tokenizer = SglangTokenizer(self._upstream) if self.server.tokenizes else None
                self._known = True
        except EngineError:
            # It may come back as another one.
            self._known = False
            raise
        self.status.load = await self._load()
        return tuple(_model_info(model, self.server) for model in listed if model.parent is None)

    @property
    def server(self) -> Server:
        """What is known of the server. Raises EngineError as long as it has never answered."""
        if self._server is None:
            raise unreachable()
        return self._server

    def vet(self, submission: Submission) -> None:
        """Refuses what SGLang would refuse, misunderstand or die of."""
        vet_request(submission, self.server)
        if self.server.rust:
            vet_rust(submission, self.server)

    @property
    def ranks(self) -> bool:
        """Whether the server schedules by priority."""
        return self._server is not None and bool(self._server.priorities)

    def answer_limit(self, submission: Submission) -> int | None:
        """Returns the limit of the native endpoint; the chat endpoint has none of its own."""
        return None if chat.needs_chat(submission, self.server) else self.server.default_max_tokens

    async def generate(self, job: Job, tell: Tell) -> None:
        """Tells what the engine writes. When it is cancelled it aborts the request."""
        submission, server, name = job.submission, self.server, self._unique()
        check_ids(submission, server)
        names: Sequence[str] = (name,)
        answer: Answer | ChatAnswer
        if chat.needs_chat(submission, server):
            path, body = chat.PATH, chat.chat_body(job, server, name, self._unique())
            answer = ChatAnswer(submission)
        else:
            path, body = request.PATH, request.generate_body(job, server, name, self._unique())
            answer = Answer(submission, request.sent_ids(job), server)
            names = request.request_names(name, submission, server)

        def read(payloads: list[bytes], into: list[Generated]) -> bool:
            answer.read(payloads, into)
            return answer.done

        try:
            await self._upstream.tell(path, body, told(read, tell), job.headers)
        except EngineError:
            raise
        except BaseException:
            # Cancelled, or `tell` has enough. SGLang also sees that the connection is closed, but not at once while it
            # reads the prompt. Several choices may have got names of their own, and SGLang forgets the request's.
            if not answer.done:
                self.leave(self._abort([*names, *(own for own in answer.ids.values() if own not in names)]))
            raise
        if not answer.done:
            raise cut()

    async def _ask_ready(self) -> None:
        # Not /health: it generates a token. A server may have neither of the two.
        for path in ("/ready", "/ping"):
            try:
                await self._upstream.text(path)
            except EngineError as error:
                if not is_missing(error):
                    raise
            else:
                return

    async def _abort(self, names: Sequence[str]) -> None:
        for name in names:
            await self._upstream.post("/abort_request", {"rid": name})

    async def _load(self) -> Load | None:
        try:
            loads = convert(await self._upstream.get("/v1/loads"), Loads).loads
        except EngineError:
            return None
        return Load(sum(one.num_running_reqs for one in loads), sum(one.num_waiting_reqs for one in loads))


def _model_info(model: Model, server: Server) -> ModelInfo:
    limits = [limit for limit in (model.max_model_len, server.max_prompt) if limit]
    return ModelInfo(model.id, min(limits, default=None), server.vocabulary)
