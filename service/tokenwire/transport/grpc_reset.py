"""Ends calls that no status can reach, for which grpc.aio has no method (docs/decisions/0010).

A client that does not read holds its stream's flow-control window shut, and a status waits behind the messages that
were written before it, for ever. gRPC's core resets a stream when its call is dropped. What holds a call besides its
handler is the task with which grpc.aio waits for the call's end, so that task is cancelled. (grpc's server itself holds
the first call that it ever gets, and the last one until the next comes.) tests/wire/test_views_stuck.py pins that this
is so; where it is not, the stream stays until its connection ends.
"""

import asyncio
import gc

# grpc's name for the task, and for the type of what stands for a call.
_TASK = "rpc_task"
_CALL = "RPCState"
# All calls that are to be reset within this time are looked for at once.
GATHER_SECONDS = 0.05


class Resets:
    """Resets calls, some at a time. Their handlers end by themselves, and hold nothing of grpc's any more."""

    def __init__(self) -> None:
        self._calls: list[object] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, context: object) -> None:
        """Resets the call of a servicer context."""
        self._calls += _held(context, _CALL)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._reset)

    def close(self) -> None:
        """Forgets what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._calls.clear()

    def _reset(self) -> None:
        self._timer = None
        calls = {id(call) for call in self._calls}
        self._calls.clear()
        for task in asyncio.all_tasks():
            if task.get_name() == _TASK and any(
                id(call) in calls for frame in gc.get_referents(task.get_coro()) for call in _held(frame, _CALL)
            ):
                task.cancel()


def _held(holder: object, kind: str) -> list[object]:
    return [one for one in gc.get_referents(holder) if type(one).__name__ == kind]
