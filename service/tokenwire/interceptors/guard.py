"""Outermost: whatever happens inside, the client gets a status, and nothing that it must not see."""

import asyncio
from typing import Any

import structlog

from tokenwire.domain.errors import Code, TokenwireError
from tokenwire.transport.call import Call, ClientGoneError, Handler

_log = structlog.get_logger()


class Guard:
    """Lets through expected errors and the client's own leaving; turns everything else into INTERNAL.

    grpc.aio sends the text of an unexpected exception to the client, and sends no status at all when the cancellation
    of some inner task escapes (tests/wire/test_bare_grpc.py pins both).
    """

    async def around(self, request: Any, call: Call, proceed: Handler) -> Any:
        """Serves the call."""
        try:
            return await proceed(request, call)
        except (TokenwireError, ClientGoneError):
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _bug(call, error) from error
        except BaseExceptionGroup as group:
            raise self._from_group(group, call) from group
        except Exception as error:
            raise _bug(call, error) from error

    @staticmethod
    def _from_group(group: BaseExceptionGroup[BaseException], call: Call) -> Exception:
        for error in _leaves(group):
            if isinstance(error, TokenwireError | ClientGoneError):
                return error
        return _bug(call, group)


def _bug(call: Call, error: BaseException) -> TokenwireError:
    _log.error("bug", rpc_id=call.context.rpc_id, method=call.method, exc_info=error)
    return TokenwireError(Code.INTERNAL, "INTERNAL", f"internal error, rpc id {call.context.rpc_id}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return leaves
