"""GenerateService and ChatService."""

from tokenwire.rpc.reading import Reader
from tokenwire.rpc.requests import from_chat, from_generate
from tokenwire.rpc.submission import Submitter
from tokenwire.transport.call import Call
from tokenwire.v1 import chat_service_pb2, generate_service_pb2, run_pb2


class GenerateServicer:
    """Generates from a prompt."""

    def __init__(self, submitter: Submitter, reader: Reader) -> None:
        self._submitter = submitter
        self._reader = reader

    async def Generate(self, request: generate_service_pb2.GenerateRequest, call: Call) -> run_pb2.RunResult:
        """Answers once, when the run has ended."""
        return await self._reader.result(await self._submitter.submit(from_generate(request), call))

    async def StreamGenerate(self, request: generate_service_pb2.GenerateRequest, call: Call) -> None:
        """Streams the run's events."""
        submission = from_generate(request)
        run, after = await self._submitter.submit(submission, call), submission.after
        # The stream may last for hours.
        del request, submission
        await self._reader.stream(run, after, call)


class ChatServicer:
    """Answers a chat."""

    def __init__(self, submitter: Submitter, reader: Reader) -> None:
        self._submitter = submitter
        self._reader = reader

    async def Chat(self, request: chat_service_pb2.ChatRequest, call: Call) -> run_pb2.RunResult:
        """Answers once, when the run has ended."""
        return await self._reader.result(await self._submitter.submit(from_chat(request), call))

    async def StreamChat(self, request: chat_service_pb2.ChatRequest, call: Call) -> None:
        """Streams the run's events."""
        submission = from_chat(request)
        run, after = await self._submitter.submit(submission, call), submission.after
        del request, submission
        await self._reader.stream(run, after, call)
