"""The client for coroutines."""

import asyncio
import random
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from grpc import aio

from tokenwire.v1.batch_service_pb2_grpc import BatchServiceStub
from tokenwire.v1.chat_service_pb2 import ChatRequest
from tokenwire.v1.chat_service_pb2_grpc import ChatServiceStub
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import Delivery
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.generate_service_pb2_grpc import GenerateServiceStub
from tokenwire.v1.model_pb2 import Model
from tokenwire.v1.model_service_pb2 import ListModelsRequest
from tokenwire.v1.model_service_pb2_grpc import ModelServiceStub
from tokenwire.v1.run_pb2 import RUN_STATE_UNSPECIFIED, Run, RunState
from tokenwire.v1.run_service_pb2 import AttachRunRequest, CancelRunRequest, GetRunRequest, ListRunsRequest
from tokenwire.v1.run_service_pb2_grpc import RunServiceStub
from tokenwire_client.aio.batch import AsyncBatch, OnEvent
from tokenwire_client.aio.leaving import to_its_end
from tokenwire_client.aio.line import Streaming
from tokenwire_client.aio.stream import AsyncStream, OnProgress, OnReconnect
from tokenwire_client.core.answer import Result
from tokenwire_client.core.asking import Asking
from tokenwire_client.core.batching import Batching, Item
from tokenwire_client.core.following import Following, Request
from tokenwire_client.core.options import ChatOptions, Options, Prompt, Said
from tokenwire_client.core.policy import Policy
from tokenwire_client.core.requests import attach_request, chat_request, checked_timeout, generate_request, named
from tokenwire_client.errors import OverdueError, RefusedError
from tokenwire_client.wire import ChannelOptions, channel_options, failure_of

# For calls that answer at once.
ANSWER_SECONDS = 10.0
PAGE = 1000
FEATURE_UNSUPPORTED = "FEATURE_UNSUPPORTED"


class AsyncClient:
    """A connection to a tokenwire server.

    Used with `async with`, or closed by `close`; it belongs to one event loop. Every call raises TokenwireClientError.

    Args:
        target: the server's address, such as 127.0.0.1:50051.
        credentials: for TLS; None: in the clear.
        metadata: sent with every call.
        policy: how hard to try.
        options: further options of the channel.
        clock: seconds, from any beginning.
        rng: chooses the waits between attempts.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        policy: Policy | None = None,
        options: ChannelOptions = (),
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.target = target
        self.policy = policy or Policy()
        self._credentials = credentials
        self._metadata = tuple(metadata)
        self._options = [*channel_options(self.policy), *options]
        self._clock = clock
        self._rng = rng or random.Random()
        self._channel: aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Returns itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the connection."""
        await self.close()

    async def close(self) -> None:
        """Closes the connection; streams that are open end."""
        if self._channel is not None:
            await self._channel.close()

    @property
    def channel(self) -> aio.Channel:
        """The channel, for the generated stubs of what has no method here."""
        if self._channel is None:
            if self._credentials is None:
                self._channel = aio.insecure_channel(self.target, options=self._options)
            else:
                self._channel = aio.secure_channel(self.target, self._credentials, options=self._options)
        return self._channel

    def stream(
        self,
        prompt: Prompt | GenerateRequest,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream:
        """Returns the answer to a prompt, to be read inside `async with`.

        Args:
            prompt: a text, token ids, or a whole request.
            timeout: seconds for all of it.
            on_progress: called with each progress event, while the stream is read.
            on_reconnect: called before each new attempt: its number, how the line ended, and the seconds until then.
            options: what the request says.
        """
        return self._stream(generate_request(prompt, options), timeout, on_progress, on_reconnect)

    def stream_chat(
        self,
        messages: Sequence[Said] | ChatRequest | str,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncStream:
        """Returns the answer to a chat, to be read inside `async with`; arguments as of `stream`.

        Args:
            messages: the messages, oldest first: texts of the user, (role, text), messages; or a whole request.
        """
        return self._stream(chat_request(messages, options), timeout, on_progress, on_reconnect)

    def attach(
        self,
        run_id: str = "",
        *,
        request_id: str = "",
        after: Cursor | int | None = None,
        delivery: Delivery | None = None,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncStream:
        """Returns a run that somebody has begun, to be read inside `async with`; leaving that does not end it.

        Args:
            run_id: the run, or
            request_id: the request, whose latest run it is.
            after: go on after this cursor, or number of an event.
            delivery: how the text is cut.
        """
        return self._stream(attach_request(run_id, request_id, after, delivery), timeout, on_progress, on_reconnect)

    async def generate(
        self,
        prompt: Prompt | GenerateRequest,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Returns the whole answer to a prompt; arguments as of `stream`, by which it is read if the engine can."""
        return await self._whole(generate_request(prompt, options), timeout, on_progress, on_reconnect)

    async def chat(
        self,
        messages: Sequence[Said] | ChatRequest | str,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
        **options: Unpack[ChatOptions],
    ) -> Result:
        """Returns the whole answer to a chat; arguments as of `stream_chat`, by which it is read if the engine can."""
        return await self._whole(chat_request(messages, options), timeout, on_progress, on_reconnect)

    async def wait(
        self,
        run_id: str = "",
        *,
        request_id: str = "",
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> Result:
        """Waits for the end of a run that somebody has begun, and returns its whole answer."""
        async with self.attach(
            run_id, request_id=request_id, timeout=timeout, on_progress=on_progress, on_reconnect=on_reconnect
        ) as stream:
            return await stream.result()

    def batch(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        in_flight: int | None = None,
        total: int = 0,
        on_event: OnEvent | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncBatch:
        """Returns the outcomes of many requests in the order of their ends, to be read inside `async with`.

        Args:
            items: prompts, requests, or BatchItems with names; without a name an item is called by its number, from 1.
            in_flight: so many at a time; the server may allow fewer.
            total: how many there will be, for the server's progress; 0: not known.
            on_event: called with each event of the server, progress included.
            on_reconnect: as of `stream`.
        """
        batching = Batching(policy=self.policy, clock=self._clock, rng=self._rng, in_flight=in_flight, total=total)
        return AsyncBatch(
            batching,
            items,
            call=lambda: BatchServiceStub(self.channel).BatchGenerate(metadata=self._metadata),
            policy=self.policy,
            on_event=on_event,
            on_reconnect=on_reconnect,
        )

    async def get(self, run_id: str = "", *, request_id: str = "", timeout: float | None = ANSWER_SECONDS) -> Run:
        """Returns what is known of a run."""
        request = GetRunRequest(**named(run_id, request_id))
        run: Run = await self._answer(RunServiceStub(self.channel).GetRun, request, timeout)
        return run

    async def runs(
        self,
        *,
        limit: int = 50,
        state: RunState.ValueType | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = ANSWER_SECONDS,
    ) -> list[Run]:
        """Returns runs, newest first."""
        request = ListRunsRequest(state=state or RUN_STATE_UNSPECIFIED, labels=labels)
        found: list[Run] = []
        while len(found) < limit:
            request.page_size = min(limit - len(found), PAGE)
            page = await self._answer(RunServiceStub(self.channel).ListRuns, request, timeout)
            found += page.runs
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return found

    async def cancel(self, run_id: str = "", *, request_id: str = "", timeout: float | None = ANSWER_SECONDS) -> Run:
        """Ends a run and returns it. A request id that names no run yet is cancelled in advance."""
        request = CancelRunRequest(**named(run_id, request_id))
        run: Run = await self._answer(RunServiceStub(self.channel).CancelRun, request, timeout)
        return run

    async def models(self, *, timeout: float | None = ANSWER_SECONDS) -> list[Model]:
        """Returns the server's models."""
        answer = await self._answer(ModelServiceStub(self.channel).ListModels, ListModelsRequest(), timeout)
        return list(answer.models)

    async def _whole(
        self,
        request: GenerateRequest | ChatRequest,
        timeout: float | None,
        on_progress: OnProgress | None,
        on_reconnect: OnReconnect | None,
    ) -> Result:
        try:
            async with self._stream(request, timeout, on_progress, on_reconnect) as stream:
                return await stream.result()
        except RefusedError as error:
            if error.reason != FEATURE_UNSUPPORTED:
                raise
        # An engine may have what was asked for and not be able to stream it; a refusal has made no run.
        return await self._unary(request, timeout)

    async def _unary(self, request: GenerateRequest | ChatRequest, timeout: float | None) -> Result:
        method: Any = (
            GenerateServiceStub(self.channel).Generate
            if isinstance(request, GenerateRequest)
            else ChatServiceStub(self.channel).Chat
        )
        try:
            return Result(await self._answer(method, request, timeout))
        except (asyncio.CancelledError, OverdueError):
            await to_its_end(self._give_up(CancelRunRequest(request_id=request.run.request_id)))
            raise

    async def _give_up(self, request: CancelRunRequest) -> None:
        with suppress(aio.AioRpcError):
            await self._cancel(request, self.policy.leave)

    async def _answer(self, method: Any, request: Any, timeout: float | None) -> Any:
        asking = Asking(self.policy, self._clock, self._rng, checked_timeout(timeout))
        while True:
            try:
                return await method(request, timeout=asking.time_left, metadata=self._metadata)
            except aio.AioRpcError as error:
                failure = failure_of(error)
            await asyncio.sleep(asking.failed(failure))

    def _stream(
        self,
        request: Request,
        timeout: float | None,
        on_progress: OnProgress | None,
        on_reconnect: OnReconnect | None,
    ) -> AsyncStream:
        following = Following(
            request, policy=self.policy, clock=self._clock, rng=self._rng, timeout=checked_timeout(timeout)
        )
        return AsyncStream(
            following,
            call=self._call,
            cancel=self._cancel,
            policy=self.policy,
            on_progress=on_progress,
            on_reconnect=on_reconnect,
        )

    def _call(self, request: Request, time_left: float | None) -> Streaming[Event]:
        # Given to grpc, 0 would be no limit at all.
        timeout = None if time_left is None else max(time_left, 0.001)
        match request:
            case GenerateRequest():
                stub = GenerateServiceStub(self.channel)
                return stub.StreamGenerate(request, timeout=timeout, metadata=self._metadata)
            case ChatRequest():
                return ChatServiceStub(self.channel).StreamChat(request, timeout=timeout, metadata=self._metadata)
            case AttachRunRequest():
                return RunServiceStub(self.channel).AttachRun(request, timeout=timeout, metadata=self._metadata)

    async def _cancel(self, request: CancelRunRequest, seconds: float) -> Run:
        return await RunServiceStub(self.channel).CancelRun(request, timeout=seconds, metadata=self._metadata)
