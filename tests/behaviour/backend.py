"""One engine behind a whole service, and what a behaviour needs of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from harness.refusals import refusal
from harness.service import Service
from tokenwire.domain import request
from tokenwire.domain.cursor import ChannelKind
from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.request import Submission
from tokenwire.engines.engine import Engine
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.finish_pb2 import FinishReason, Usage
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.message_pb2 import ROLE_ASSISTANT, ROLE_USER, Message
from tokenwire.v1.run_pb2 import RunResult
from tokenwire.v1.sampling_pb2 import Sampling, Stopping

PROMPT = "The capital of France is"
# The embedded engine has a penalty of its own for its bundled model.
GREEDY = Sampling(temperature=0, repetition_penalty=1.0)
TOKENS = 8


@dataclass
class Answer:
    """A whole stream."""

    events: list[Event]

    def text(self, choice: int = 0) -> str:
        return "".join(event.delta.text for event in self.events if event.delta.choice == choice)

    def token_ids(self, choice: int = 0) -> list[int]:
        return [one for event in self.events if event.delta.choice == choice for one in event.delta.token_ids]

    @property
    def usage(self) -> Usage:
        return self.events[-1].end.usage

    def reason(self, choice: int = 0) -> str:
        return FinishReason.Name(self.events[-1].end.choices[choice].finish_reason).removeprefix("FINISH_REASON_")


@dataclass
class Backend:
    """A service with one engine.

    Attributes:
        name: the engine's, as the table of results has it.
        window: tokens of prompt and answer together.
        outcome: what the running test found: it works, or it is refused by name.
    """

    name: str
    service: Service
    engine: Engine
    window: int
    outcome: str = field(default="works")

    def takes(self, *paths: str) -> bool:
        """Whether the engine has all of these fields, by the table."""
        return all(path in self.engine.fields for path in paths)

    async def stream(self, request: GenerateRequest | ChatRequest) -> Answer:
        """Reads a stream to its end."""
        if isinstance(request, ChatRequest):
            return Answer([event async for event in self.service.chat.StreamChat(request)])
        return Answer([event async for event in self.service.generate.StreamGenerate(request)])

    def written(self, answer: Answer, kind: ChannelKind = ChannelKind.TEXT) -> int:
        """Returns in how many pieces the engine wrote a channel; what a reader gets may have been merged."""
        run = self.service.app.runs.get("local", run_id=answer.events[0].start.run_id)
        return sum(len(log.seqs) for log in run.log.channels if log.channel.kind is kind)

    async def unary(self, request: GenerateRequest | ChatRequest) -> RunResult:
        """Asks for the whole answer."""
        if isinstance(request, ChatRequest):
            return await self.service.chat.Chat(request)
        return await self.service.generate.Generate(request)

    async def greedy(self, **groups: Any) -> Answer:
        """Goes on from the prompt with the most probable tokens; `groups` as in GenerateRequest."""
        return await self.stream(asked(**groups))

    @contextmanager
    def having(self, *paths: str) -> Iterator[None]:
        """Runs a behaviour that needs fields; where the engine lacks one, the request must be refused by its name.

        A server may have been started without something that its kind of engine has; that is refused by name too.
        """
        names = {path.partition("=")[0] for path in paths}
        lacking = [path for path in paths if path not in self.engine.fields]
        try:
            yield
        except grpc.aio.AioRpcError as error:
            told = refusal(error)
            if told.reason != "FEATURE_UNSUPPORTED" or not {name for name, _ in told.violations} <= names:
                raise
            self.outcome = "refused" if lacking else f"refused: {told.message.partition(': ')[2]}"
            return
        if lacking:
            raise AssertionError(f"{self.name} took {lacking} though its column lacks it")

    def seeded(self, seed: int, **fields: Any) -> Sampling:
        """Returns sampling with a seed, where this server honours it."""
        sampling = Sampling(**fields)
        model = self.engine.status.models[0].name
        with suppress(InvalidRequestError):
            self.engine.vet(Submission(model=model, prompt="a", sampling=request.Sampling(seed=seed)))
            sampling.seed = seed
        return sampling


def asked(prompt: str = PROMPT, **groups: Any) -> GenerateRequest:
    """Returns a greedy request for a few tokens."""
    stopping = groups.pop("stopping", Stopping(max_tokens=TOKENS))
    sampling = groups.pop("sampling", GREEDY)
    if groups.get("prompt_ids"):
        return GenerateRequest(stopping=stopping, sampling=sampling, **groups)
    return GenerateRequest(prompt=prompt, stopping=stopping, sampling=sampling, **groups)


def chat(*contents: str, **groups: Any) -> ChatRequest:
    """Returns a greedy chat; the messages are the user's and the assistant's in turn."""
    roles = (ROLE_USER, ROLE_ASSISTANT)
    messages = groups.pop("messages", None) or [
        Message(role=roles[place % 2], content=content) for place, content in enumerate(contents)
    ]
    stopping = groups.pop("stopping", Stopping(max_tokens=TOKENS))
    return ChatRequest(messages=messages, stopping=stopping, sampling=GREEDY, **groups)


def words(text: str) -> list[str]:
    """Returns the words of a text."""
    return re.findall(r"\w+", text)
