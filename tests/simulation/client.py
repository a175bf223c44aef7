"""Simulated clients: the real client's core, on calls of the simulated network."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.history import LEFT, Reading
from simulation.gateway import Gateway
from simulation.network import FAIR, Line, Weather
from simulation.world import World
from tokenwire.domain.cursor import START
from tokenwire.rpc.requests import from_cursor
from tokenwire.v1.cursor_pb2 import Cursor
from tokenwire.v1.delivery_pb2 import BUFFERING_MODE_SIZE, Buffering, Delivery
from tokenwire.v1.event_pb2 import Event
from tokenwire.v1.generate_service_pb2 import GenerateRequest
from tokenwire.v1.run_service_pb2 import AttachRunRequest
from tokenwire_client.core.failure import Failure, silence
from tokenwire_client.core.following import Following
from tokenwire_client.core.policy import Policy
from tokenwire_client.errors import TokenwireClientError

SILENCE_SECONDS = 35.0
POLICY = Policy(silence=SILENCE_SECONDS)
WHOLE = "whole"
# Why a server sends readers away whose run lives.
_SENT_AWAY = ("SLOW_CONSUMER", "DRAINING", "MOVED")
# Longer than a server waits for a client that does not read.
NAP_SECONDS = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A client drops its call after so many messages, and comes back later.

    Args:
        after: messages of the call.
        seconds: how long it stays away.
        rewind: whether it goes on at a cursor that it had earlier, not at its last one.
    """

    after: int
    seconds: float
    rewind: bool


class Client:
    """Reads one request's run to its end, whatever happens.

    Args:
        world: where it lives.
        name: its name.
        request_id: the request.
        gateway: chooses a gateway for each call.
        weathers: what its first calls meet; the later ones are fair.
        leaves: when it goes away.
        pause: seconds that it takes for a message, at most.
        nap: after so many messages in all it does not read for NAP_SECONDS; 0: never.

    Attributes:
        outcome: how it ended: WHOLE, or the error's reason or code.
        error: what the client's core raised, if it did.
    """

    def __init__(
        self,
        world: World,
        name: str,
        request_id: str,
        gateway: Callable[[], Gateway],
        *,
        weathers: Sequence[Weather] = (),
        leaves: Sequence[Leave] = (),
        pause: float = 0.0,
        nap: int = 0,
    ) -> None:
        self.outcome = ""
        self.error: TokenwireClientError | None = None
        self.name = name
        self.request_id = request_id
        self._world = world
        self._gateway = gateway
        self._weathers = list(weathers)
        self._leaves = list(leaves)
        self._pause = pause
        self._nap = nap
        self._rng = random.Random(world.rng.random())
        self._cursors: list[Cursor] = []
        self._token_ids = False

    async def submit(self, request: GenerateRequest) -> None:
        """Submits, and follows the run."""
        copy = GenerateRequest()
        copy.CopyFrom(request)
        copy.delivery.CopyFrom(self._delivery())
        self._token_ids = request.output.token_ids
        await self._follow(copy)

    async def attach(self, *, token_ids: bool, after: Cursor | None = None) -> None:
        """Follows a run that is there."""
        self._token_ids = token_ids
        await self._follow(AttachRunRequest(request_id=self.request_id, after=after, delivery=self._delivery()))

    async def _follow(self, request: GenerateRequest | AttachRunRequest) -> None:
        following: Following | None = self._following(request)
        try:
            while following is not None:
                following = await self._one(following)
            self.outcome = WHOLE
        except TokenwireClientError as error:
            self.error = error
            self.outcome = error.reason or error.code.name
            self._world.note(f"{self.name} ends with {type(error).__name__} {self.outcome}: {error.message}")
        else:
            self._world.note(f"{self.name} has it whole")

    async def _one(self, following: Following) -> Following | None:
        """Follows until the end, or until it is time to leave; returns how to go on then."""
        while True:
            line, reading = self._call(following)
            leave = self._leaves[0] if self._leaves else None
            while True:
                data = await self._next(line)
                if data is None:
                    break
                event = Event.FromString(data)
                reading.messages.append(event)
                following.add(event)
                reading.run_id = following.run_id
                self._heard(event, following)
                if leave is not None and len(reading.messages) == leave.after and not following.ended:
                    return await self._away(line, reading, following, leave)
                if self._nap and len(self._cursors) >= self._nap:
                    self._nap = 0
                    self._world.note(f"{self.name} does not read", "client does not read")
                    await asyncio.sleep(NAP_SECONDS)
                if self._pause:
                    await asyncio.sleep(self._rng.random() * self._pause)
            status = line.status
            # The end may still arrive when the server has given up sending it.
            broken = status is not None and (not status.told or status.reason in _SENT_AWAY)
            reading.status = LEFT if broken else "OK" if status is None else status.code.name
            if status is not None:
                kind = status.reason.lower() if status.reason in _SENT_AWAY else ""
                self._world.note(f"{self.name}: {status.code.name} {status.reason or status.message}", kind)
                self._told(status, reading)
            again = following.finished() if status is None else following.failed(status)
            if again is None:
                return None
            await asyncio.sleep(again.seconds)

    async def _away(self, line: Line, reading: Reading, following: Following, leave: Leave) -> Following:
        self._leaves.pop(0)
        line.leave()
        reading.status = LEFT
        after = self._rng.choice(self._cursors) if leave.rewind and self._cursors else following.cursor
        self._world.note(
            f"{self.name} leaves for {leave.seconds:g} s", "client rewinds" if leave.rewind else "client leaves"
        )
        await asyncio.sleep(leave.seconds)
        again = AttachRunRequest(after=after, delivery=self._delivery())
        if following.run_id:
            again.run_id = following.run_id
        else:
            again.request_id = self.request_id
        return self._following(again)

    def _call(self, following: Following) -> tuple[Line, Reading]:
        request = following.request
        method = "AttachRun" if isinstance(request, AttachRunRequest) else "StreamGenerate"
        gateway = self._gateway()
        weather = self._weathers.pop(0) if self._weathers else FAIR
        after = from_cursor(request.after) if request.HasField("after") else START
        self._world.note(f"{self.name} calls {method} at {gateway.name} after {after.seq}{'+' * len(after.ahead)}")
        reading = Reading(self.name, self.request_id, after, self._token_ids)
        self._world.readings.append(reading)
        return self._world.call(gateway, method, request, weather), reading

    async def _next(self, line: Line) -> bytes | None:
        loop = self._world.loop
        timer = loop.call_later(SILENCE_SECONDS, self._drop, line)
        try:
            return await line.read()
        finally:
            timer.cancel()

    def _drop(self, line: Line) -> None:
        self._world.note(f"{self.name} hears nothing")
        line.leave(silence(SILENCE_SECONDS))

    def _told(self, status: Failure, reading: Reading) -> None:
        """A server that ends a stream says where to go on, and whether that makes sense (P4)."""
        if status.told and reading.messages and not {"retryable", "cursor"} <= status.metadata.keys():
            self._world.problem(f"P4: {self.name} was not told how to go on after {status.reason}")

    def _heard(self, event: Event, following: Following) -> None:
        if event.HasField("cursor"):
            self._cursors.append(event.cursor)
            if following.run_id:
                self._world.seen[following.run_id] = max(self._world.seen[following.run_id], event.cursor.seq)

    def _following(self, request: GenerateRequest | AttachRunRequest) -> Following:
        return Following(request, policy=POLICY, clock=self._world.loop.time, rng=self._rng)

    def _delivery(self) -> Delivery:
        size = self._rng.choice((0, 0, 1, 2, 5, 17))
        if not size:
            return Delivery()
        return Delivery(buffering=Buffering(mode=BUFFERING_MODE_SIZE, size=size))
