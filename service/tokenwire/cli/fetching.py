"""How far the embedded model's download is: a bar on a terminal, a line now and then elsewhere."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_STEP = 25  # percent
_MEGABYTE = 1_000_000
_WORDS = {
    "download": "fetching the model",
    "unpack": "unpacking the model",
    "verify": "checking the model",
}


class Fetching:
    """Shows progress on standard error."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._steps: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def progress(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Hears how much of what is done; `total_bytes` is 0 if not known."""
        if sys.stderr.isatty() or self._bar is not None:
            self._show(done_bytes, total_bytes, what)
        else:
            self._line(done_bytes, total_bytes, what)

    def _show(self, done: int, total: int, what: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(_WORDS.get(what, what), total=total or None)
        self._bar.update(self._tasks[what], completed=done, total=total or None)
        if self._bar.finished:
            self._stop()

    def _stop(self) -> None:
        bar, self._bar = self._bar, None
        self._tasks.clear()
        if bar is not None:
            bar.stop()

    def _line(self, done: int, total: int, what: str) -> None:
        # Without a total, one line for each 25 MB.
        step = done * 100 // total // _STEP if total else done // (25 * _MEGABYTE)
        if self._steps.get(what) == step:
            return
        self._steps[what] = step
        of = f" of {total / _MEGABYTE:.0f}" if total else ""
        print(f"{_WORDS.get(what, what)}: {done / _MEGABYTE:.0f}{of} MB", file=sys.stderr, flush=True)
