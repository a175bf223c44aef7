"""RunService."""

from itertools import islice

from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.domain.errors import InvalidRequestError
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
        await self._reader.stream(self._find(request, call), from_cursor(request.after), call)

    async def WaitRun(self, request: run_service_pb2.WaitRunRequest, call: Call) -> run_pb2.RunResult:
        """Answers when the run has ended."""
        return await self._reader.result(self._find(request, call))

    async def GetRun(self, request: run_service_pb2.GetRunRequest, call: Call) -> run_pb2.Run:
        """Tells of a run."""
        return to_run(self._find(request, call))

    async def ListRuns(self, request: run_service_pb2.ListRunsRequest, call: Call) -> run_service_pb2.ListRunsResponse:
        """Lists runs, newest first."""
        runs = self._runs.list(call.context.tenant)
        if request.page_token:
            ids = [run.id for run in runs]
            if request.page_token not in ids:
                raise InvalidRequestError("page_token", "is not known, or its run is forgotten; begin anew")
            runs = runs[ids.index(request.page_token) + 1 :]
        wanted = (
            run
            for run in runs
            if (not request.state or state_of(run) == request.state)
            and request.labels.items() <= dict(run.submission.run.labels).items()
        )
        size = request.page_size or DEFAULT_PAGE
        page = list(islice(wanted, size + 1))
        more = page[size - 1].id if len(page) > size else ""
        return run_service_pb2.ListRunsResponse(runs=[to_run(run) for run in page[:size]], next_page_token=more)

    async def CancelRun(self, request: run_service_pb2.CancelRunRequest, call: Call) -> run_pb2.Run:
        """Ends a run."""
        run = await self._runs.cancel(call.context, run_id=request.run_id, request_id=request.request_id)
        return to_run(run)

    def _find(
        self,
        request: run_service_pb2.AttachRunRequest | run_service_pb2.WaitRunRequest | run_service_pb2.GetRunRequest,
        call: Call,
    ) -> Run:
        return self._runs.get(call.context.tenant, run_id=request.run_id, request_id=request.request_id)
