"""A line on the terminal while the server loads the model or reads the prompt."""

import sys
from typing import TYPE_CHECKING

from tokenwire.v1 import event_pb2
from tokenwire.v1.event_pb2 import Event

if TYPE_CHECKING:
    from rich.status import Status


class LoadingLine:
    """Shows what the server does, until it writes."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._status: Status | None = None

    def event(self, event: Event) -> None:
        """Takes the next event of the stream."""
        if not self._shown:
            return
        match event.progress.phase:
            case event_pb2.PHASE_LOADING:
                text = f"the model is being loaded, {event.elapsed_ms // 1000} s"
            case event_pb2.PHASE_PREFILL:
                done, total = event.progress.prefill_done, event.progress.prefill_total
                text = f"the prompt is being read, {done} of {total} tokens"
            case _:
                self.close()
                return
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status(text)
            self._status.start()
        self._status.update(text)

    def close(self) -> None:
        """Takes the line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
