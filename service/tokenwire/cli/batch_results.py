"""The results of a batch: JSON lines in a file that a later run goes on with, or on standard output."""

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from google.protobuf.json_format import MessageToDict

from tokenwire.cli.failure import USAGE, CommandError
from tokenwire.cli.printing import json_line
from tokenwire.cli.terminal import on_terminal, plain
from tokenwire.v1.batch_service_pb2 import BatchEvent, BatchItemDone
from tokenwire.v1.finish_pb2 import FinishReason, RunError, StatusCode
from tokenwire.v1.run_pb2 import Choice, RunResult


class Results:
    """Where results go.

    Args:
        path: the file; None: standard output.
        as_json: the server's events go to standard output.
        retry_failed: what has failed in the file is not skipped.

    Attributes:
        done: how many items ended now; `failed` have failed, in the file already or now.
    """

    def __init__(self, path: Path | None, *, as_json: bool, retry_failed: bool) -> None:
        self.done = 0
        self._path = path
        self._as_json = as_json
        self._retry_failed = retry_failed
        # Whether an item went well, by its id.
        self._known: dict[str, bool] = {}
        self._before: dict[str, bool] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._path.open("a+b")
                self._take_up(self._file)
            except OSError as error:
                self._close()
                raise CommandError(f"cannot write {self._path}: {error.strerror}", exit_code=USAGE) from None
            except CommandError:
                self._close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def failed(self) -> int:
        """How many items have failed."""
        return sum(not well for well in self._known.values())

    @property
    def skipped(self) -> int:
        """How many items the file had that are not asked again."""
        return sum(self.skips(item_id) for item_id in self._before)

    def skips(self, item_id: str) -> bool:
        """Whether the file had an item's result, and it is not to be asked again."""
        well = self._before.get(item_id)
        return well is not None and (well or not self._retry_failed)

    def event(self, event: BatchEvent) -> None:
        """Takes the next event; writes the result of an item that ended."""
        if self._as_json:
            _print(json_line(event))
        if not event.HasField("item_done"):
            return
        done = event.item_done
        well = done.HasField("result")
        self.done += 1
        # A line that has the id of another one is an error of its own.
        self._known[done.item_id] = well and self._known.get(done.item_id, True) if self._twice(done) else well
        line = json.dumps(result_of(done), ensure_ascii=False)
        if self._file is not None:
            try:
                self._file.write(line.encode() + b"\n")
                self._file.flush()
            except OSError as error:
                raise CommandError(f"cannot write {self._path}: {error.strerror}", exit_code=USAGE) from None
        elif not self._as_json:
            _print(plain(line) if on_terminal() else line)

    def _twice(self, done: BatchItemDone) -> bool:
        return done.item_id in self._known and done.item_id not in self._before

    def _take_up(self, file: BinaryIO) -> None:
        """Reads what earlier runs wrote; a last line that was torn is cut."""
        file.seek(0)
        for number, data in enumerate(file, 1):
            try:
                line = json.loads(data)
                self._before[line["id"]] = "error" not in line or self._before.get(line["id"], False)
            except (ValueError, TypeError, KeyError):
                if data.endswith(b"\n"):
                    raise CommandError(
                        f"line {number} of {self._path} is no result of a batch", exit_code=USAGE
                    ) from None
                file.truncate(file.tell() - len(data))
                break
            if not data.endswith(b"\n"):
                file.write(b"\n")
        file.seek(0, os.SEEK_END)
        self._known = dict(self._before)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()


def result_of(done: BatchItemDone) -> dict[str, Any]:
    """Returns an item's result, as it is written."""
    if done.HasField("error"):
        run = {"run_id": done.run_id} if done.run_id else {}
        return {"id": done.item_id, **run, "error": _error(done.error)}
    result: RunResult = done.result
    choices = [_choice(choice) for choice in result.choices]
    if len(choices) == 1:
        choices[0].pop("index")
    line = {"id": done.item_id, "run_id": done.run_id, **(choices[0] if len(choices) == 1 else {"choices": choices})}
    line["usage"] = MessageToDict(
        result.usage, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if result.prompt_logprobs:
        line["prompt_logprobs"] = [
            MessageToDict(one, preserving_proto_field_name=True) for one in result.prompt_logprobs
        ]
    return line


def _choice(choice: Choice) -> dict[str, Any]:
    known = MessageToDict(choice, preserving_proto_field_name=True)
    reason = FinishReason.Name(choice.finish_reason).removeprefix("FINISH_REASON_").lower()
    return {"index": choice.index, "text": choice.text} | known | {"finish_reason": reason}


def _error(error: RunError) -> dict[str, Any]:
    return {
        "code": StatusCode.Name(error.code).removeprefix("STATUS_CODE_"),
        "reason": error.reason,
        "message": error.message,
        "retryable": error.retryable,
    }


def _print(line: str) -> None:
    # Bytes, whatever the locale.
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()
