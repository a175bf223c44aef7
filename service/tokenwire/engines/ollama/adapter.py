"""Ollama as an engine."""

from contextlib import suppress
from typing import Any

from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, Job, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import cut
from tokenwire.engines.framing import LINES
from tokenwire.engines.ollama.answer import Answer
from tokenwire.engines.ollama.catalog import Catalog
from tokenwire.engines.ollama.request import path_and_body, vet, vet_for
from tokenwire.engines.remote import RemoteEngine, told
from tokenwire.engines.status import ModelInfo


class OllamaEngine(RemoteEngine):
    """An engine behind Ollama's own HTTP API; arguments as those of RemoteEngine.

    A prompt that does not fit into the window is refused, and an answer that fills it ends: Ollama's own ways, to leave
    out messages and to forget half of the text, are turned off. A model that others have loaded with other settings is
    loaded again.
    """

    kind = "ollama"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._catalog = Catalog(self.name, self._upstream)

    async def ask(self) -> tuple[ModelInfo, ...]:
        """Returns the models that can write text; the latest of a name also without its tag."""
        models = await self._catalog.models()
        return tuple(ModelInfo(name, model.window) for model in models for name in model.names)

    def vet(self, submission: Submission) -> None:
        """Refuses what Ollama would refuse or ignore, and what the model does not have as far as that is known."""
        vet(submission)
        model = self._catalog.known(submission.model)
        if model is not None:
            vet_for(submission, model)

    async def generate(self, job: Job, tell: Tell) -> None:
        """Tells what the engine writes. When it is cancelled it closes the connection."""
        model = await self._catalog.model(job.model)
        vet_for(job.submission, model)
        path, body = path_and_body(job, model)
        answer = Answer(job, model.window)

        def read(payloads: list[bytes], into: list[Generated]) -> bool:
            answer.read(payloads, into)
            return answer.done

        try:
            await self._upstream.tell(path, body, told(read, tell), job.headers, LINES)
        except EngineError as error:
            if error.reason == "ENGINE_REFUSED":
                # The model may be another one by now, without what the one that was known had.
                with suppress(EngineError):
                    vet_for(job.submission, await self._catalog.again(job.model))
            raise
        if not answer.done:
            raise cut()
