"""A line on the terminal while the server still loads the model."""

import sys
from typing import TYPE_CHECKING

from tokenwire.v1.event_pb2 import PHASE_LOADING, Event

if TYPE_CHECKING:
    from rich.status import Status


class LoadingLine:
    """Shows that the model is being loaded, as long as it is."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._status: Status | None = None

    def event(self, event: Event) -> None:
        """Takes the next event of the stream."""
        if not self._shown:
            return
        if event.progress.phase != PHASE_LOADING:
            self.close()
            return
        text = f"the model is being loaded, {event.elapsed_ms // 1000} s"
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
