"""A stream of Ollama as domain values."""

import json
from collections.abc import Sequence

import msgspec

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import Code, EngineError
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Job, Piece, Totals
from tokenwire.engines.failure import NOT_JSON, aborted, cut, garbled, in_stream
from tokenwire.engines.ollama.wire import Call, Chosen, Line

_decode = msgspec.json.Decoder(Line).decode

_TEXT = Channel(0)
_REASONING = Channel(0, ChannelKind.REASONING)
# Versions differ in whether the last token counts.
_SLACK_TOKENS = 2


class Answer:
    """Reads the stream of one job, line by line.

    Ollama counts tokens in its last line alone. Until then each line with text stands for one token, as it has one at
    least; only where the channel changes, one token may make two lines.

    Args:
        job: what was asked for.
        window: tokens of prompt and answer together, None if not known.

    Attributes:
        done: whether the answer has ended; nothing after it is read.
    """

    def __init__(self, job: Job, window: int | None) -> None:
        submission = job.submission
        logprobs = submission.output.logprobs
        self.done = False
        self._run_id = job.run_id
        self._max_tokens = submission.stopping.max_tokens
        self._top_n = None if logprobs is None else logprobs.top_n or 0
        self._window = window
        self._channel: Channel | None = None
        self._tokens = 0
        self._ids: set[str] = set()
        # The text of an answer that must be JSON; one that a stop string may have cut need not be.
        checked = submission.constraint is not None and not submission.stopping.stop
        self._checked: list[str] | None = [] if checked else None
        self._wants_object = submission.constraint is not None and bool(submission.constraint.json_object)

    def read(self, payloads: Sequence[bytes], into: list[Generated]) -> None:
        """Appends what the lines tell. What came before a failure stays appended."""
        before = self._tokens
        try:
            for payload in payloads:
                if self.done:
                    return
                self._line(_read(payload), into)
        finally:
            if self._tokens > before and not self.done:
                # A run that is cut now has cost this at least.
                into.append(Totals(output_tokens=self._tokens))

    def _line(self, line: Line, into: list[Generated]) -> None:
        message = line.message
        reasoning = line.thinking if message is None else message.thinking
        text = line.response if message is None else message.content
        for channel, piece in ((_REASONING, reasoning), (_TEXT, text)):
            if piece:
                if not line.done and self._channel in (None, channel):
                    self._tokens += 1
                self._channel = channel
                if self._max_tokens is not None and self._tokens > self._max_tokens:
                    # A model that reasons before an answer in a given form gets the limit twice.
                    self._tokens = self._max_tokens
                    into.append(ChoiceDone(choice=0, finish_reason=FinishReason.LENGTH))
                    into.append(Totals(output_tokens=self._tokens))
                    self.done = True
                    return
                into.append(Piece(channel=channel, text=piece))
                if self._checked is not None and channel is _TEXT:
                    self._checked.append(piece)
        if line.logprobs and self._top_n is not None:
            self._logprobs(line.logprobs, bool(reasoning or text), into)
        if message is not None and message.tool_calls:
            for call in message.tool_calls:
                self._call(call, into)
        if line.done:
            self._end(line, into)

    def _logprobs(self, chosen: Sequence[Chosen], has_text: bool, into: list[Generated]) -> None:
        """Gives log probabilities to the text that came with them, or else to the channel's next."""
        told = tuple(_logprob(one, self._top_n or 0) for one in chosen)
        piece = into[-1] if has_text else None
        if not isinstance(piece, Piece):
            piece = Piece(channel=self._channel or _TEXT, text="")
            into.append(piece)
        piece.logprobs = told
        # Each is a token, so here the count is known.
        piece.token_count = len(told)

    def _call(self, call: Call, into: list[Generated]) -> None:
        if not call.function.name:
            raise garbled()
        channel = Channel(0, ChannelKind.TOOL_CALL, len(self._ids))
        call_id = call.id or ""
        if not call_id or call_id in self._ids:
            call_id = f"call_{self._run_id}_{channel.index}"
        self._ids.add(call_id)
        arguments = json.dumps(call.function.arguments or {}, ensure_ascii=False, separators=(",", ":"))
        into.append(CallHead(channel=channel, id=call_id, name=call.function.name))
        into.append(Piece(channel=channel, text=arguments))

    def _end(self, line: Line, into: list[Generated]) -> None:
        # Old versions, and the documentation's examples, give no reason.
        reason = line.done_reason or "stop"
        if reason == "stop":
            finish = FinishReason.TOOL_CALLS if self._ids else FinishReason.STOP
            if self._checked is not None and not _is_json("".join(self._checked), self._wants_object):
                # Ollama begins to constrain where reasoning ends: never, if a model that may reason did not. And it
                # hands requests for a cloud's models on to who may not look at the constraint.
                raise EngineError(
                    Code.UNAVAILABLE,
                    "CONSTRAINT_NOT_KEPT",
                    "the engine did not hold the answer to the constraint",
                    retryable=True,
                )
        elif reason == "length":
            finish = FinishReason.CONTEXT_LENGTH if self._is_full(line) else FinishReason.LENGTH
        elif reason in ("load", "unload"):
            # Nothing was asked of the model.
            raise cut()
        else:
            raise aborted()
        into.append(ChoiceDone(choice=0, finish_reason=finish))
        written = max(line.eval_count or 0, self._tokens)
        into.append(Totals(prompt_tokens=line.prompt_eval_count, output_tokens=written or line.eval_count))
        self.done = True

    def _is_full(self, line: Line) -> bool:
        """Whether an answer that was cut was cut by the window, not by what was asked for."""
        written = line.eval_count or 0
        if self._max_tokens is not None:
            return bool(written) and written < self._max_tokens
        read = line.prompt_eval_count or 0
        return self._window is not None and read + written >= self._window - _SLACK_TOKENS


def _read(payload: bytes) -> Line:
    try:
        line = _decode(payload)
    except NOT_JSON as error:
        raise garbled() from error
    if line.error is not None:
        raise in_stream(line.error)
    if line.done is None:
        raise garbled()
    return line


def _is_json(text: str, wants_object: bool) -> bool:
    try:
        value = msgspec.json.decode(text)
    except NOT_JSON:
        return False
    return isinstance(value, dict) or not wants_object


def _logprob(chosen: Chosen, top_n: int) -> TokenLogprob:
    top = (chosen.top_logprobs or ())[:top_n]
    return TokenLogprob(
        token_id=None,
        token=chosen.token,
        logprob=chosen.logprob,
        top=tuple(TokenLogprob(token_id=None, token=one.token, logprob=one.logprob) for one in top),
    )
