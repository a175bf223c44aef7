"""Any OpenAI-compatible server as an engine."""

from tokenwire.domain.generation import Job, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import cut
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.openai.logprobs import without_ids
from tokenwire.engines.openai.models import served_models
from tokenwire.engines.openai.request import COMPLETION_TOKENS_DEFAULT, endpoint_and_body
from tokenwire.engines.openai.request import vet as vet_request
from tokenwire.engines.remote import RemoteEngine, told
from tokenwire.engines.status import ModelInfo


class OpenAIEngine(RemoteEngine):
    """An engine behind OpenAI's HTTP API; arguments as those of RemoteEngine, `url` with or without /v1."""

    kind = "openai"

    async def ask(self) -> tuple[ModelInfo, ...]:
        """Returns the models that the server lists."""
        return await served_models(self._upstream)

    def vet(self, submission: Submission) -> None:
        """Refuses values that OpenAI's API refuses."""
        vet_request(submission)

    def answer_limit(self, submission: Submission) -> int | None:
        """Returns OpenAI's own limit of a completion."""
        return None if submission.messages else COMPLETION_TOKENS_DEFAULT

    async def generate(self, job: Job, tell: Tell) -> None:
        """Tells what the engine writes. When it is cancelled it closes the connection."""
        path, body = endpoint_and_body(job)
        asked = job.submission.output.logprobs
        answer = Answer(
            job.submission.n,
            logprobs=None if asked is None else lambda places, _: without_ids(places, asked.top_n or 0),
            stop=job.submission.stopping.stop,
        )

        await self._upstream.tell(path, body, told(answer.read, tell), job.headers)
        if not answer.done:
            raise cut()
