"""Why a command fails, as people and programs are told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Exit codes: 0 is success, 130 is Ctrl-C.
USAGE = 1
SERVER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of an error.

    Args:
        message: one sentence.
        code: the gRPC status' name, if a server or the connection failed.
        reason: the server's stable word.
        fields: description by field at fault.
        retry_after: seconds.
        rpc_id: names the call in the server's log.
        metadata: further facts for programs.
        hint: what to do about it.
    """

    message: str
    code: str = ""
    reason: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    rpc_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""

    def line(self) -> str:
        """Returns it as one line for people."""
        reason = f" ({self.reason})" if self.reason else ""
        text = f"{self.code}{reason}: {self.message}" if self.code else self.message
        facts = []
        if self.fields:
            facts.append(f"{'field' if len(self.fields) == 1 else 'fields'} {', '.join(self.fields)}")
        if self.retry_after is not None:
            facts.append(f"retry after {self.retry_after:.1f} s")
        if self.rpc_id:
            facts.append(f"rpc {self.rpc_id}")
        if facts:
            text += f" [{'; '.join(facts)}]"
        return f"{text}. {self.hint}" if self.hint else text

    def as_json(self) -> dict[str, object]:
        """Returns it for programs, without what is not known."""
        known: dict[str, object] = {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "fields": [{"field": name, "description": text} for name, text in self.fields.items()],
            "retry_after_ms": None if self.retry_after is None else round(self.retry_after * 1000),
            "rpc_id": self.rpc_id,
            "metadata": dict(self.metadata),
            "hint": self.hint,
        }
        return {name: value for name, value in known.items() if value not in ("", None, [], {})}


class CommandError(Exception):
    """Ends the command with a message and an exit code.

    Attributes:
        as_json: whether the command's output is JSON, and so must this be.
    """

    def __init__(self, report: Report | str, *, exit_code: int = SERVER) -> None:
        self.report = Report(message=report) if isinstance(report, str) else report
        super().__init__(self.report.message)
        self.exit_code = exit_code
        self.as_json = False


class Finished(Exception):  # noqa: N818 - not an error
    """Ends the command with an exit code; all has been said."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(str(exit_code))
        self.exit_code = exit_code
