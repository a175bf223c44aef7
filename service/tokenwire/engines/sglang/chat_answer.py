"""From a stream of the chat endpoint to what domain/generation.py says."""

from collections.abc import Mapping, Sequence

from tokenwire.domain.errors import EngineError
from tokenwire.domain.generation import Generated, taken_apart
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import aborted
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.openai.logprobs import without_ids
from tokenwire.engines.sglang.unfinished import UnfinishedCharacters
from tokenwire.engines.sglang.wire import tells_abort


class ChatAnswer:
    """Reads one stream, payload by payload: what OpenAI's API says, without the signs of unfinished characters.

    Args:
        submission: what was asked for.

    Attributes:
        done: whether the stream's terminator came with every choice finished; nothing after it is read.
        ids: as of the native endpoint; none, as this one does not tell them.
    """

    def __init__(self, submission: Submission) -> None:
        logprobs, stopping = submission.output.logprobs, submission.stopping
        self.done = False
        self.ids: Mapping[int, str] = {}
        self._characters = UnfinishedCharacters()
        self._answer = Answer(
            submission.n,
            logprobs=None if logprobs is None else lambda told, _: without_ids(told, logprobs.top_n or 0),
            stop=stopping.stop,
            stop_token_ids=stopping.stop_token_ids,
            max_tokens=stopping.max_tokens,
        )

    def read(self, payloads: Sequence[bytes], into: list[Generated]) -> None:
        """Appends what the payloads tell. What came before a failure stays appended."""
        told: list[Generated] = []
        try:
            self._answer.read(payloads, told)
        except EngineError as error:
            if any(map(tells_abort, payloads)):
                raise aborted() from error
            raise
        finally:
            into += self._characters.take(taken_apart(told))
        self.done = self._answer.done
