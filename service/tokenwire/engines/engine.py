"""What every engine offers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenwire.domain.generation import Job, Prompt, Tell
from tokenwire.domain.request import Submission
from tokenwire.engines.status import Status
from tokenwire.engines.support import Cell


@dataclass(frozen=True, slots=True)
class Token:
    """A token's id, and its text as far as it is text on its own."""

    id: int
    text: str


class Tokenizer(Protocol):
    """An engine's own means to turn messages and text into tokens."""

    async def prompt(self, submission: Submission) -> Prompt:
        """Returns a request's prompt, with its ids, and its text as far as the engine tells it.

        That of a chat is ready for the assistant's answer. Prompts of token ids are never asked for. Refuses, with
        InvalidRequestError, what the engine can only tell then, such as a constraint that it cannot make a grammar of.
        """
        ...

    async def tokenize(self, text: str) -> tuple[Token, ...]:
        """Returns the tokens of a prompt text; special tokens in it are taken as such."""
        ...

    async def answer_ids(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a part of an answer: as `tokenize`, without the tokens that belong around a prompt."""
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Returns the text of tokens."""
        ...


class Engine(Protocol):
    """One engine, for the life of the process.

    Attributes:
        name: its name in the settings; unique.
        kind: the adapter's kind, such as llamacpp.
        fields: the request fields it takes, by path, as engines/support.py has them; a request that sets another one
            is refused by name.
        status: whether it answers, and its models.
        tokenizer: its means to render a prompt, or None: prompts are then sent as they came.
        takes_ids: whether it wants prompts as token ids: all are rendered then, else only where that is needed.
        default_max_tokens: what an unset `stopping.max_tokens` means, or None: as the engine does.
        slots: how many choices it writes at once, where it has a fixed number; None: it does not tell.
        carries: the fields of `sampling` that count the prompt's tokens like those of the answer, so that their effect
            goes on when an answer's beginning is sent as the end of a prompt.
        ranks: whether it is known to take requests in the order of `run.priority`.
    """

    name: str
    kind: str
    status: Status
    takes_ids: bool
    default_max_tokens: int | None
    slots: int | None
    carries: frozenset[str]

    @property
    def fields(self) -> Mapping[str, Cell]:
        """See above."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """See above."""
        ...

    @property
    def ranks(self) -> bool:
        """See above."""
        ...

    async def start(self) -> None:
        """Begins to bring the engine up, without waiting for it."""
        ...

    async def check(self) -> None:
        """Asks the engine once whether it answers and for its models, and brings `status` up to date."""
        ...

    async def close(self) -> None:
        """Stops all that `start` began and closes every connection."""
        ...

    def vet(self, submission: Submission) -> None:
        """Refuses, before there is a run, values that the engine would refuse or misunderstand; its model is named.

        Raises InvalidRequestError with the field. Only for what `fields` cannot say, such as a limit of the engine.
        """
        ...

    def answer_limit(self, submission: Submission) -> int | None:
        """Returns how many tokens an answer has there at most if the request does not say; None: as many as fit."""
        ...

    async def generate(self, job: Job, tell: Tell) -> None:
        """Tells what the engine writes, one list a read, where the bytes arrive.

        Returns only when the engine's own terminator came and every choice is done. When it is cancelled, or `tell`
        raises, it stops the engine's work before it raises that. Raises EngineError with the code that fits before the
        first text.
        """
        ...
