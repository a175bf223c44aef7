"""RunService."""

from contextlib import suppress

from tokenwire.dispatch.observer import Joining
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.errors import InvalidRequestError, NotFoundError
from tokenwire.rpc.reading import Reader
from tokenwire.rpc.requests import from_cursor
from tokenwire.rpc.results import state_of, to_run
from tokenwire.transport.call import Call
from tokenwire.v1 import run_pb2, run_service_pb2

DEFAULT_PAGE = 50


class RunServicer:
    """Reads, waits for, lists and cancels runs."""

    def __init__(self, runs: Runs, reader: Reader) -> None:
        self._runs = runs
        self._reader = reader

    async def AttachRun(self, request: run_service_pb2.AttachRunRequest, call: Call) -> None:
        """Streams a run from a cursor."""
        run, after = await self._find(request, call), from_cursor(request.after)
        self._runs.observer.joins(run, Joining.ATTACH, after)
        await self._reader.stream(run, after, call)

    async def WaitRun(self, request: run_service_pb2.WaitRunRequest, call: Call) -> run_pb2.RunResult:
        """Answers when the run has ended."""
        run = await self._find(request, call)
        self._runs.observer.joins(run, Joining.WAIT, None)
        return await self._reader.result(run)

    async def GetRun(self, request: run_service_pb2.GetRunRequest, call: Call) -> run_pb2.Run:
        """Tells of a run."""
        return to_run(await self._find(request, call))

    async def ListRuns(self, request: run_service_pb2.ListRunsRequest, call: Call) -> run_service_pb2.ListRunsResponse:
        """Lists runs, newest first."""
        ids = await self._runs.known(call.context.tenant)
        if request.page_token:
            if request.page_token not in ids:
                raise InvalidRequestError("page_token", "is not known, or its run is forgotten; begin anew")
            ids = ids[ids.index(request.page_token) + 1 :]
        size = request.page_size or DEFAULT_PAGE
        page: list[run_pb2.Run] = []
        more = ""
        for run_id in ids:
            with suppress(NotFoundError):
                run = await self._runs.find(call.context.tenant, run_id=run_id)
                if not _matches(run, request):
                    continue
                if len(page) == size:
                    more = page[-1].run_id
                    break
                page.append(to_run(run))
        return run_service_pb2.ListRunsResponse(runs=page, next_page_token=more)

    async def CancelRun(self, request: run_service_pb2.CancelRunRequest, call: Call) -> run_pb2.Run:
        """Ends a run."""
        run = await self._runs.cancel(call.context, run_id=request.run_id, request_id=request.request_id)
        return to_run(run)

    async def _find(
        self,
        request: run_service_pb2.AttachRunRequest | run_service_pb2.WaitRunRequest | run_service_pb2.GetRunRequest,
        call: Call,
    ) -> Run:
        return await self._runs.find(call.context.tenant, run_id=request.run_id, request_id=request.request_id)


def _matches(run: Run, request: run_service_pb2.ListRunsRequest) -> bool:
    asked = request.labels.items() <= dict(run.submission.run.labels).items()
    return asked and (not request.state or state_of(run) == request.state)
