"""Makes a run known to all gateways, as the only one of its request id."""

import asyncio

from tokenwire.journal.journal import RequestTakenError
from tokenwire.journal.redis.codec import Codec
from tokenwire.journal.redis.leases import Leases
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.names import parts, run_name
from tokenwire.journal.redis.refusals import full, unavailable
from tokenwire.journal.redis.store import NewRun, Store, StoreError, StoreFullError
from tokenwire.journal.redis.writing import Writing

# A gateway that claims a request id makes its run, or dies.
CLAIM_SECONDS = 5.0
# Whoever comes second waits for that so long at a time.
WAIT_SECONDS = 0.02


class Opening:
    """Opens runs.

    Args:
        store: where they are to be.
        codec: makes them bytes.
        link: whether the store answers.
        leases: removes what was opened in vain.
        lease_seconds: how long a writer may be silent.
        goes_on: whether runs begin without the store while it is down.
    """

    def __init__(
        self, store: Store, codec: Codec, link: Link, leases: Leases, *, lease_seconds: float, goes_on: bool
    ) -> None:
        self._store = store
        self._codec = codec
        self._link = link
        self._leases = leases
        self._lease_seconds = lease_seconds
        self._goes_on = goes_on

    async def open(self, writing: Writing, replaces: str) -> None:
        """Creates a run in the store; without it, if that is the policy.

        Raises RequestTakenError if the request id names a run already, RESOURCE_EXHAUSTED JOURNAL_FULL if the store has
        no memory left, UNAVAILABLE JOURNAL_UNAVAILABLE if it does not answer.
        """
        # As long as it is not down it may answer: two gateways that went on without it could both have a run.
        while not self._link.down:
            begun = self._link.writes.now()
            try:
                await self._create(writing, replaces)
            except StoreError as error:
                pause = self._link.writes.failed(begun, error)
                if isinstance(error, StoreFullError):
                    break
                await asyncio.sleep(max(pause, WAIT_SECONDS))
            else:
                self._link.writes.worked()
                return
        if self._goes_on and not self._link.full:
            return
        # It may have been created all the same.
        self._leases.discard(writing.new_run(self._codec, self._lease_seconds))
        raise full() if self._link.full else unavailable()

    async def _create(self, writing: Writing, replaces: str) -> None:
        run = writing.new_run(self._codec, self._lease_seconds)
        try:
            if run.request:
                await self._claim(writing, run.request, replaces)
            await self._store.create(run)
            if run.request:
                await self._check_claim(writing, run)
        except asyncio.CancelledError:
            # Nobody would write it, and somebody would take it over.
            self._leases.discard(run)
            raise
        writing.created = True

    async def _check_claim(self, writing: Writing, run: NewRun) -> None:
        """Raises RequestTakenError if the claim was over before the run was there: a process may stand still."""
        holder = await self._store.resolve(parts(writing.name)[0], run.request)
        if holder != writing.run_id:
            self._leases.discard(run)
            raise RequestTakenError(holder)

    async def _claim(self, writing: Writing, request: str, replaces: str) -> None:
        tenant, run_id = parts(writing.name)
        while True:
            holder, created = await self._store.claim(tenant, request, run_id, replaces, CLAIM_SECONDS)
            if holder == run_id:
                return
            if not created:
                # Another gateway is about to make its run.
                await asyncio.sleep(WAIT_SECONDS)
            elif await self._store.load(run_name(writing.record.tenant, holder)) is not None:
                raise RequestTakenError(holder)
            else:
                # A run that is forgotten.
                replaces = holder
