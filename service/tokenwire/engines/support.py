"""Which request field reaches which engine, and how: the one table.

ModelService's capabilities, the refusals and docs/engines.md are made from it. A row is a field of GenerateRequest or
ChatRequest, such as `sampling.top_k`, or one value of it, such as `tool_choice.mode=REQUIRED`; a row of a message
stands for all of its fields. tests/unit/engines/test_support.py fails for a field without a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType


class Support(IntEnum):
    """How a request field reaches an engine; numbers as in model.proto."""

    REFUSED = 0
    NATIVE = 1
    TRANSLATED = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """How one field reaches one engine.

    Attributes:
        support: how.
        note: what is particular, for people.
        unary_only: the engine answers such a request as a whole, so that the streaming RPCs refuse it.
    """

    support: Support
    note: str = ""
    unary_only: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One field: a cell for each of KINDS; no cells if tokenwire serves it itself, whatever the engine."""

    field: str
    cells: tuple[Cell, ...] = ()
    note: str = ""


KINDS = ("llamacpp", "vllm", "sglang", "ollama", "openai")

N = Cell(Support.NATIVE)
X = Cell(Support.REFUSED)


def _t(note: str) -> Cell:
    return Cell(Support.TRANSLATED, note)


def _x(note: str) -> Cell:
    return Cell(Support.REFUSED, note)


_UNARY = Cell(Support.NATIVE, "unary RPCs only", unary_only=True)
_BEAMS = Cell(Support.NATIVE, "unary RPCs only; not with the Rust front end", unary_only=True)
_NOT_RUST = Cell(Support.NATIVE, "not with the Rust front end")
_PRESET = _t("temperature and top_p")
_ECHO = _t("tokenwire writes the rendered prompt")
_THINK = _t("think; few models tell the levels apart")
_AT_MOST_20 = Cell(Support.NATIVE, "at most 20")
_NO_TOOLS = Cell(Support.NATIVE, "not where tools may be called")
_TOLD_TWICE = Cell(Support.NATIVE, "keywords that it would drop are told in the description")
_PLAIN_STOP = Cell(Support.NATIVE, "told as STOP")
_LIMITED = Cell(Support.NATIVE, "128 if unset; with tools or reasoning as many as fit")
_PARSER = Cell(Support.NATIVE, "needs --tool-call-parser and the Python front end")
_DETERMINISTIC = Cell(Support.NATIVE, "needs --enable-deterministic-inference, if chance is asked for")
_SCHEDULED = Cell(Support.NATIVE, "needs --enable-priority-scheduling")
_NOT_LAST = Cell(Support.NATIVE, "not as the last message")
_NOT_USERS = Cell(Support.NATIVE, "not of a user's message")
_EOS_HEEDED = Cell(Support.NATIVE, "not with ignore_eos")
_PLAIN = Cell(Support.NATIVE, "not with tools or reasoning")
_CALLER = Cell(Support.NATIVE, "needs --enable-auto-tool-choice and --tool-call-parser")
_NOT_FORCED = Cell(Support.NATIVE, "not where a tool must be called")
_GIVEN = Cell(Support.NATIVE, "at most 128, not with top_n")
_ALL = Cell(Support.NATIVE, "needs --max-logprobs=-1")
_ALL_UNARY = Cell(Support.NATIVE, "unary RPCs only; needs --max-logprobs=-1", unary_only=True)
_CHAT_ONLY = Cell(Support.NATIVE, "of messages, not of a prompt")
_LATER = X, X, X, X, X

TABLE: tuple[Row, ...] = (
    Row("model", note="chooses the engine"),
    # What to go on from.
    Row("prompt", (N, N, N, N, N)),
    Row("prompt_ids", (N, N, N, X, N)),
    Row("system", (N, N, N, N, N)),
    Row("messages.role=SYSTEM", (N, N, N, N, N)),
    Row("messages.role=USER", (N, N, N, N, N)),
    Row("messages.role=ASSISTANT", (N, N, _NOT_LAST, N, N)),
    Row("messages.role=TOOL", (_t("as the chat template has it, else as text"), N, N, N, N)),
    Row("messages.content", (N, N, N, N, N)),
    Row("messages.tool_calls", (_t("as the chat template has it, else as text"), N, N, N, N)),
    Row("messages.tool_call_id", (_t("else the called tool's name"), N, N, _t("with the called tool's name"), N)),
    Row("messages.name", (N, _NOT_RUST, _NOT_USERS, X, N)),
    # Tools and reasoning.
    Row("tools.name", (_t("constrained text"), N, _PARSER, N, N)),
    Row("tools.description", (_t("told in the system message"), N, N, N, N)),
    Row("tools.parameters_schema", (_t("constrained text"), N, N, _TOLD_TWICE, N)),
    Row("tools.strict", (_t("constrained text"), N, N, X, N)),
    Row("tool_choice.mode=AUTO", (_t("constrained text"), _CALLER, N, N, N)),
    Row("tool_choice.mode=NONE", (_t("tools are not told"), N, N, _t("tools are not told"), N)),
    Row("tool_choice.mode=REQUIRED", (_t("constrained text"), N, N, X, N)),
    Row("tool_choice.name", (_t("constrained text"), N, N, X, N)),
    Row("parallel_tool_calls", (_t("constrained text"), N, N, X, N)),
    Row("reasoning.effort=NONE", (_t("a variable of the chat template, where it has it"), N, N, _t("think"), N)),
    Row("reasoning.effort=LOW", (_t("a variable of the chat template, where it has it"), N, N, _THINK, N)),
    Row("reasoning.effort=MEDIUM", (_t("a variable of the chat template, where it has it"), N, N, _THINK, N)),
    Row("reasoning.effort=HIGH", (_t("a variable of the chat template, where it has it"), N, N, _THINK, N)),
    # How tokens are chosen.
    Row("sampling.preset", (_PRESET, _PRESET, _PRESET, _PRESET, _PRESET)),
    Row("sampling.temperature", (N, N, N, N, N)),
    Row("sampling.top_p", (N, N, N, N, N)),
    Row("sampling.top_k", (N, N, N, N, X)),
    Row("sampling.min_p", (N, N, N, N, X)),
    Row("sampling.repetition_penalty", (N, N, N, N, X)),
    Row("sampling.presence_penalty", (N, N, N, N, N)),
    Row("sampling.frequency_penalty", (N, N, N, N, N)),
    Row("sampling.seed", (N, N, _DETERMINISTIC, N, N)),
    Row("sampling.logit_bias", (N, N, N, X, N)),
    Row("sampling.n", (Cell(Support.NATIVE, "at most its slots"), _NOT_RUST, N, X, N)),
    Row("sampling.beam_search.width", (X, _BEAMS, X, X, X)),
    Row("sampling.beam_search.length_penalty", (X, _BEAMS, X, X, X)),
    Row("sampling.beam_search.early_stopping", (X, X, X, X, X)),
    # When a choice stops.
    Row("stopping.max_tokens", (N, N, _LIMITED, N, N)),
    Row("stopping.min_tokens", (X, N, N, X, X)),
    Row("stopping.stop", (N, N, N, _PLAIN_STOP, N)),
    Row("stopping.stop_token_ids", (_t("tokenwire ends the choice there"), N, _EOS_HEEDED, X, X)),
    Row("stopping.ignore_eos", (Cell(Support.NATIVE, "not with a constraint or tools"), N, N, X, X)),
    Row("stopping.skip_special_tokens", (X, N, N, X, X)),
    Row("stopping.include_stop", (_t("tokenwire writes it"), N, N, X, X)),
    # What the answer must look like.
    Row("constraint.json_schema", (N, _NOT_FORCED, _NO_TOOLS, _NO_TOOLS, _CHAT_ONLY)),
    Row("constraint.regex", (_t("a grammar"), _NOT_FORCED, _NO_TOOLS, X, X)),
    Row("constraint.grammar", (N, _NOT_FORCED, _NO_TOOLS, X, X), note="in the engine's own notation: GBNF, or EBNF"),
    Row(
        "constraint.choice",
        (_t("a grammar"), _NOT_FORCED, _t("a regular expression; not where tools may be called"), X, X),
    ),
    Row(
        "constraint.json_object",
        (
            _t("a JSON Schema"),
            _NOT_FORCED,
            _t("a JSON Schema; not where tools may be called"),
            _NO_TOOLS,
            _CHAT_ONLY,
        ),
    ),
    Row("constraint.structural_tag", (X, _NOT_FORCED, _NO_TOOLS, X, X)),
    # What is told beside the text.
    Row("output.logprobs.top_n", (N, N, N, _AT_MOST_20, N)),
    Row("output.logprobs.token_ids", (_t("picked out of all"), _GIVEN, _PLAIN, X, X)),
    Row("output.logprobs.all", (_t("as many as the vocabulary has"), _ALL, X, X, X)),
    Row("output.prompt_logprobs.top_n", (X, _UNARY, _PLAIN, X, X)),
    Row("output.prompt_logprobs.token_ids", (X, X, _PLAIN, X, X)),
    Row("output.prompt_logprobs.all", (X, _ALL_UNARY, X, X, X)),
    Row("output.token_ids", note="those that the engine tells; ollama and openai tell none"),
    Row("output.echo", (_ECHO, _ECHO, _ECHO, _t("of a prompt, not of messages"), _t("of a prompt, not of messages"))),
    Row("output.full_text", note="read from the journal"),
    Row("delivery", note="a property of the view"),
    Row("limits", note="kept by the dispatcher; allow_partial is not in this version"),
    # The run's life.
    Row("run.request_id", note="idempotency"),
    Row("run.orphan_grace", note="kept by the dispatcher"),
    Row("run.detached", note="kept by the dispatcher"),
    Row("run.labels", note="told with the run"),
    Row("run.failover", note="kept by the dispatcher"),
    Row("run.priority", (X, _t("with the opposite sign; needs --scheduling-policy=priority"), _SCHEDULED, X, X)),
    Row("kv.lease", _LATER, note="not in this version"),
    Row("kv.cache_salt", (X, N, N, X, X)),
    Row("kv.bypass", (N, _t("a salt of its own"), _t("a salt of its own"), X, X)),
    Row("after", note="where a reader goes on"),
)


def column(kind: str) -> Mapping[str, Cell]:
    """Returns the fields that engines of a kind take, by path; a request that sets another one is refused."""
    place = KINDS.index(kind)
    cells = {row.field: row.cells[place] for row in TABLE if row.cells}
    return MappingProxyType({field: cell for field, cell in cells.items() if cell.support is not Support.REFUSED})
