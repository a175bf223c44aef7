"""An answer of vLLM as domain values, whichever front end it comes from."""

from tokenwire.domain.generation import Generated, Piece, taken_apart
from tokenwire.domain.request import Submission
from tokenwire.engines.openai.answer import Answer
from tokenwire.engines.vllm.blame import Emptiness
from tokenwire.engines.vllm.server import Server
from tokenwire.engines.vllm.unfinished import UnfinishedCharacters


class Reader:
    """Reads one answer, and mends what the Rust front end leaves in it.

    Args:
        answer: reads it as it comes.
        submission: what was asked for.
        server: who answers.

    Attributes:
        wrote: whether the Rust front end has told of a token.
    """

    __slots__ = ("_answer", "_emptiness", "_unfinished", "wrote")

    def __init__(self, answer: Answer, submission: Submission, server: Server) -> None:
        self.wrote = False
        self._answer = answer
        self._unfinished = UnfinishedCharacters(server.unknown_character) if server.rust else None
        # xgrammar fails over what it cannot read.
        silent = server.rust and not server.tags and submission.constraint is not None
        self._emptiness = Emptiness(submission.constraint) if silent and submission.constraint else None

    def read(self, payloads: list[bytes], into: list[Generated]) -> bool:
        """Appends what payloads of a stream tell and returns whether the answer is whole."""
        try:
            self._answer.read(payloads, into)
        finally:
            self._mend(into)
        self._check(into)
        return self._answer.done

    @property
    def mends(self) -> bool:
        """Whether there may be something to mend; else the answer can be read as it is."""
        return self._unfinished is not None or self._emptiness is not None

    def read_whole(self, payload: bytes, into: list[Generated]) -> None:
        """Appends what an answer tells that came as a whole."""
        self._answer.read_whole(payload, into)
        self._mend(into)
        self._check(into)

    def _mend(self, into: list[Generated]) -> None:
        if self._unfinished is not None:
            into[:] = self._unfinished.take(taken_apart(into))
            self.wrote = self.wrote or any(isinstance(item, Piece) for item in into)

    def _check(self, into: list[Generated]) -> None:
        if self._emptiness is not None:
            self._emptiness.check(into)
