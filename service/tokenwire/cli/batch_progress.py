"""How far a batch is: a bar on a terminal, and a line at the end."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tokenwire.cli.saying import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class BatchProgress:
    """Shows progress on standard error.

    Args:
        total: how many items there are; 0: not known.
        quiet: show nothing.
        beside_results: the results go to standard output, so that there is no bar if that is a terminal too.
    """

    def __init__(self, total: int, *, quiet: bool, beside_results: bool) -> None:
        self._total = total
        self._quiet = quiet
        self._shown = not quiet and sys.stderr.isatty() and not (beside_results and sys.stdout.isatty())
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=self._total or None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def show(self, done: int, failed: int, running: int) -> None:
        """Shows how many items ended, how many of them failed, and how many are in flight."""
        if self._bar is not None and self._task is not None:
            text = f"{running} in flight" + (f", {failed} failed" if failed else "")
            self._bar.update(self._task, completed=done, description=text)

    def note(self, text: str) -> None:
        """Tells something that happened on the way."""
        if not self._quiet:
            say(text)

    def end(self, done: int, failed: int, skipped: int) -> None:
        """Sums up."""
        self._stop()
        before = f" ({skipped} of them before)" if skipped else ""
        self.note(f"{done + skipped} items are done{before}, {failed} failed")

    def _stop(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
