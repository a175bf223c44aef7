"""Several gateways of one store in one process: each with its own Runs, engine and journal, as in dispatch/house.py."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, cast

from tokenwire.delivery.view import View
from tokenwire.dispatch.dispatcher import Dispatcher, Patience
from tokenwire.dispatch.fleet import Fleet
from tokenwire.dispatch.lifetimes import Lifetimes
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.dispatch.tries import Failover
from tokenwire.domain.context import Clock, RequestContext
from tokenwire.domain.cursor import START, Channel, Cursor
from tokenwire.domain.errors import NotFoundError, TokenwireError
from tokenwire.domain.events import Delta
from tokenwire.domain.generation import Job, Piece
from tokenwire.domain.request import RunOptions, Stopping, Submission
from tokenwire.engines.scripted import Emit, ScriptedEngine, Step, WaitFor
from tokenwire.engines.status import ModelInfo
from tokenwire.engines.toy_model import FIELDS, ToyModel, ToyTokenizer
from tokenwire.journal.journal import RequestTakenError
from tokenwire.journal.redis.journal import RedisJournal
from tokenwire.journal.redis.redis_store import RedisStore
from tokenwire.journal.redis.store import Store, StoreError
from tokenwire.render.renderer import Renderer

TOY = ToyModel()
LEASE = 0.4
SHARE = 65536


def asked(request_id: str = "", *, tokens: int = 40, grace: float | None = 30.0, prompt: str = "A tale") -> Submission:
    """Returns a request for so many tokens."""
    run = RunOptions(request_id=request_id, orphan_grace=grace)
    fingerprint = sha256(prompt.encode()).digest()
    return Submission(prompt=prompt, run=run, stopping=Stopping(max_tokens=tokens), fingerprint=fingerprint)


def whole(tokens: int = 40, prompt: str = "A tale") -> str:
    """Returns the answer to a request, however often its run is broken off and gone on with."""
    data = prompt.encode()
    for _ in range(tokens):
        token = TOY.next_id(data, 0)
        assert token is not None
        data += TOY.text_of((token,))
    return data.decode("utf-8", "ignore")[len(prompt) :]


class Path:
    """The way of one gateway to the store; may be blocked, or lose what comes back.

    Attributes:
        lose_replies: how many of the next steps are done, and seem to fail.
        down: whether nothing gets through.
        lost: how many replies were lost.
        hang_after: the step of which no reply comes.
        hung: is set once that has happened.
    """

    def __init__(self, store: Store) -> None:
        self.lose_replies = 0
        self.down = False
        self.lost = 0
        self.hang_after = ""
        self.hung = asyncio.Event()
        self._store = store
        self._open = asyncio.Event()
        self._open.set()

    def stop(self) -> None:
        """From now on every step waits: the process is stopped."""
        self._open.clear()

    def go_on(self) -> None:
        """Lets what waits go on."""
        self._open.set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        step = getattr(self._store, name)

        async def through(*args: Any, **kwargs: Any) -> Any:
            await self._open.wait()
            if self.down and name != "close":
                raise StoreError("the way is cut")
            result = await step(*args, **kwargs)
            await self._open.wait()
            if name == self.hang_after:
                self.hung.set()
                await asyncio.get_running_loop().create_future()
            if self.lose_replies and name in ("append", "create", "claim", "take", "renew"):
                self.lose_replies -= 1
                self.lost += 1
                raise StoreError("the reply is lost")
            return result

        return through


@dataclass(kw_only=True)
class Gateway:
    """One gateway."""

    store: Store
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    max_bytes: int = 10_000_000
    lease: float = LEASE

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        # Until a test lets it, an engine writes no more than `hold` tokens for one job.
        self.hold = 10
        self.gate = asyncio.Event()
        self.path = Path(self.store)
        self.clock = Clock(monotonic=loop.time, wall=lambda: 1_700_000_000 + loop.time())
        self.engine = ScriptedEngine(self.name, script=self._script, fields=FIELDS)
        self.engine.tokenizer = ToyTokenizer(TOY)
        self.journal = RedisJournal(
            "redis://unused",
            self.max_bytes,
            clock=self.clock,
            rng=Random(secrets.randbits(64)),
            gateway_id=self.name,
            lease_seconds=self.lease,
            outage_seconds=0.2,
            store=cast("Store", self.path),
            **self.options,
        )
        self.fleet = Fleet([self.engine], now=loop.time, rng=Random(1))
        lifetimes = Lifetimes(
            orphan_grace=0.0, orphan_grace_max=60.0, retention=60.0, max_duration=600.0, cancelled_ids=3, stop=1.0
        )
        patience = Patience(first_token=120.0, stall=30.0, stop=1.0)
        dispatcher = Dispatcher(self.fleet, self.journal, patience, Renderer().render, Failover(), Random(2))
        self.runs = Runs(dispatcher, self.journal, lifetimes, self.clock, new_id=self.journal.new_id)
        self.dead = False

    @property
    def context(self) -> RequestContext:
        """A call."""
        return RequestContext(rpc_id="rpc", tenant="local", received_at=self.clock.monotonic())

    async def submit(self, submission: Submission) -> Run:
        """Finds or starts a request's run, in the steps of rpc/submission.py."""
        while True:
            try:
                async with self.runs.claim(submission, self.context) as existing:
                    if existing is not None:
                        return existing
                    route = await self.fleet.route("")
                    prompt = await Renderer().render(submission, route.engine, ModelInfo(route.model))
                    return await self.runs.accept(submission, prompt, route, SHARE, self.context)
            except RequestTakenError:
                continue

    async def find(self, run_id: str) -> Run:
        """Finds a run."""
        return await self.runs.find("local", run_id=run_id)

    async def crash(self) -> None:
        """Dies without a word: nothing of it reaches the store any more."""
        self.dead = True
        tasks = [*self.journal._tasks, *(run.task for run in self.runs.list("local") if run.task is not None)]
        waiting = set(tasks)
        while waiting:
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=0.05)
        self.path.down = True
        await self.store.close()

    async def close(self) -> None:
        """Ends as a server does that is shut down."""
        if self.dead:
            return
        self.path.go_on()
        await self.runs.drain(0)
        # As the server does: what was taken over while it drained goes on elsewhere, too.
        await self.runs.drain(0)
        await self.runs.close()
        await self.journal.close()

    def _script(self, job: Job) -> Sequence[Step]:
        steps: list[Step] = []
        written = 0
        for step in TOY.steps(job):
            if isinstance(step, Emit) and any(isinstance(one, Piece) for one in step.batch):
                if written == self.hold:
                    steps.append(WaitFor(self.gate))
                written += 1
            steps.append(step)
        return steps


@asynccontextmanager
async def gateways(
    *names: str, url: str, lease: float = LEASE, max_bytes: int = 10_000_000, prefix: str = "", **options: Any
) -> AsyncIterator[list[Gateway]]:
    """Runs gateways of one store."""
    prefix = prefix or f"test-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        started = []
        for name in names:
            store = RedisStore(url, prefix, reply_seconds=5.0)
            one = Gateway(store=store, name=name, options=options, max_bytes=max_bytes, lease=lease)
            await one.journal.start(one.runs)
            # The server may have been up for less than a lease; no writer of these tests was there before.
            one.journal._leases._patient_until = 0.0
            stack.push_async_callback(one.close)
            started.append(one)
        yield started


def text_of(run: Run) -> str:
    """Returns what readers may see of a run's text, if all of it is committed."""
    log = run.log.channel(Channel())
    return log.text[: log.consumed_at(run.log.committed)[1]].decode() if log else ""


async def comes(run: Run, condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Waits for something that the run's readers are woken for."""
    async with asyncio.timeout(seconds):
        while not condition():
            await run.log.changed()


async def becomes(question: Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
    """Asks the store until the answer is yes; nothing tells when."""
    async with asyncio.timeout(seconds):
        while not await question():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class Client:
    """A client that comes back until it has the whole answer, and checks every offset.

    Attributes:
        text: what it has; `cursor` likewise.
        moved: how often it was sent away.
    """

    run_id: str
    text: str = ""
    cursor: Cursor = START
    moved: int = 0
    ended: bool = False

    async def follow(self, *places: Gateway) -> str:
        """Reads to the end, at each of the gateways in turn. Raises what a client would not try again after."""
        async with asyncio.timeout(20):
            turn = 0
            while not self.ended:
                gateway = places[turn % len(places)]
                turn += 1
                try:
                    await self.read(gateway)
                except NotFoundError:
                    raise
                except TokenwireError as error:
                    if not error.retryable:
                        raise
                await asyncio.sleep(0.01)
        return self.text

    async def read(self, gateway: Gateway) -> None:
        """Reads at one gateway until the end, or until it is sent away."""
        run = await gateway.find(self.run_id)
        with gateway.runs.reading(run):
            view = View(run.log, self.cursor)
            while True:
                for envelope in view.take():
                    if isinstance(envelope.event, Delta):
                        assert envelope.event.byte_offset == len(self.text.encode()), "no gap and nothing twice"
                        self.text += envelope.event.text
                    assert envelope.cursor.seq >= self.cursor.seq
                    self.cursor = envelope.cursor
                if view.ended:
                    self.ended = True
                    return
                if view.behind:
                    continue
                if run.handed_over is not None:
                    self.moved += 1
                    return
                await run.log.changed()
