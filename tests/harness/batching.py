"""A client of BatchGenerate that a test leads by the hand."""

import asyncio
from collections import defaultdict
from typing import Any

import grpc

from harness.refusals import Refusal, refused
from harness.service import Service
from tokenwire.dispatch.batch import Batch
from tokenwire.domain.generation import Job
from tokenwire.engines.scripted import ScriptedEngine, Step, WaitFor, words
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchGenerateRequest, BatchItem, BatchItemDone, BatchOpen
from tokenwire.v1.batch_service_pb2_grpc import BatchServiceStub
from tokenwire.v1.generate_service_pb2 import GenerateRequest


def generate_item(item_id: str, prompt: str = "hi", **fields: Any) -> BatchItem:
    """Returns an item with a prompt; `fields` are those of GenerateRequest."""
    return BatchItem(item_id=item_id, generate=GenerateRequest(prompt=prompt, **fields))


class Talk:
    """One call. `seen` holds the events that were read, those without a number left out."""

    def __init__(self, running: Service | grpc.aio.Channel, **options: Any) -> None:
        channel = running.channel if isinstance(running, Service) else running
        self.call: Any = BatchServiceStub(channel).BatchGenerate(**options)
        self.seen: list[BatchEvent] = []
        self.progress: list[BatchEvent] = []

    async def open(self, **fields: Any) -> None:
        """Sends the first message."""
        await self.send(BatchGenerateRequest(open=BatchOpen(**fields)))

    async def item(self, item_id: str, prompt: str = "hi", **fields: Any) -> None:
        """Sends an item with a prompt."""
        await self.send(BatchGenerateRequest(item=generate_item(item_id, prompt, **fields)))

    async def send(self, message: BatchGenerateRequest) -> None:
        """Sends any message."""
        await self.call.write(message)

    async def close(self) -> None:
        """Half-closes."""
        await self.call.done_writing()

    async def next(self) -> BatchEvent:
        """Reads the next event that has a number; there must be one."""
        while True:
            event = await self.call.read()
            assert isinstance(event, BatchEvent), f"the call has ended: {await self.call.code()}"
            if event.seq:
                self.seen.append(event)
                return event
            self.progress.append(event)

    async def done(self) -> BatchItemDone:
        """Reads on until an item has ended."""
        while True:
            event = await self.next()
            if event.HasField("item_done"):
                return event.item_done

    async def refusal(self) -> Refusal:
        """Reads on to the end, which must be a bad one."""

        async def read() -> None:
            while await self.call.read() is not grpc.aio.EOF:
                pass

        return await refused(read())

    async def rest(self) -> list[BatchEvent]:
        """Half-closes and reads to the end, which must be a good one; returns all that was seen."""
        await self.close()
        while not (await self.next()).HasField("end"):
            pass
        assert await self.call.code() is grpc.StatusCode.OK
        return self.seen


class Gates:
    """An engine that answers a prompt with itself once the prompt's gate is open, and knows the most jobs at once."""

    def __init__(self, *open_ones: str) -> None:
        self.gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.most = 0
        self.prompts: list[str] = []
        self.engine = ScriptedEngine(script=self._script)
        for one in open_ones:
            self.gates[one].set()

    def open(self, *prompts: str) -> None:
        for prompt in prompts:
            self.gates[prompt].set()

    def _script(self, job: Job) -> list[Step]:
        prompt = job.submission.prompt or ""
        self.prompts.append(prompt)
        self.most = max(self.most, self.engine.running)
        return [WaitFor(self.gates[prompt]), *words(prompt)]


def outcomes(events: list[BatchEvent]) -> dict[str, str]:
    """Returns each item's text, or the reason of its error, by its id."""
    found = {}
    for event in events:
        if event.HasField("item_done"):
            done = event.item_done
            found[done.item_id] = done.result.choices[0].text if done.HasField("result") else done.error.reason
    return found


def the_batch(running: Service) -> Batch:
    """Returns the only batch that the server has."""
    (batch,) = running.app.batches._batches.values()
    return batch
