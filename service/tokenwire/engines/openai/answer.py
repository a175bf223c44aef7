"""An OpenAI stream, or whole answer, as domain values."""

from collections.abc import Callable, Container, Sequence

import msgspec

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason, TokenLogprob
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Piece, Pieces, PromptRead, Totals
from tokenwire.engines.failure import NOT_JSON, aborted, cut, garbled, in_stream
from tokenwire.engines.openai.logprobs import Place, places
from tokenwire.engines.openai.wire import Call, Choice, Chunk, Usage

DONE = b"[DONE]"

# From places and, as far as they are told, the ids of the tokens there.
ReadLogprobs = Callable[[Sequence[Place], Sequence[int]], tuple[TokenLogprob, ...]]

_decoder = msgspec.json.Decoder(Chunk)
_decode, _decode_lines = _decoder.decode, _decoder.decode_lines

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    # Hugging Face's servers have words of their own.
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
}
# Shared by all choices that call none, as nearly all: an empty set of its own would take 200 bytes.
_NO_CALLS: frozenset[Channel] = frozenset()


class Answer:
    """Reads one answer, payload by payload.

    Args:
        choices: how many choices were asked for.
        logprobs: reads log probabilities; None: they were not asked for.
        stop: the request's own stop strings; None if they do not matter. Another string that ended a choice is the
            server's own.
        stop_token_ids: the request's own; another token that ended a choice is the model's.
        max_tokens: the request's limit of a choice.
        context_window: tokens of prompt and answer that fit. What ends there ended for that, if the tokens are told.

    Attributes:
        done: whether the stream's terminator came with every choice finished; nothing after it is read.
    """

    __slots__ = (
        "_choices",
        "_context_window",
        "_logprobs",
        "_max_tokens",
        "_plain",
        "_prompt_tokens",
        "_stop",
        "_stop_token_ids",
        "_usage",
        "done",
    )

    def __init__(
        self,
        choices: int,
        *,
        logprobs: ReadLogprobs | None = None,
        stop: Container[str] | None = None,
        stop_token_ids: Container[int] = (),
        max_tokens: int | None = None,
        context_window: int | None = None,
    ) -> None:
        self.done = False
        self._choices = [_Choice(index) for index in range(choices)]
        self._logprobs = logprobs
        self._stop = stop
        self._stop_token_ids = stop_token_ids
        self._max_tokens = max_tokens
        self._context_window = context_window
        self._prompt_tokens: int | None = None
        # From the first chunk on, which tells the prompt.
        self._plain = False
        self._usage: Usage | None = None

    def read(self, payloads: Sequence[bytes], into: list[Generated]) -> bool:
        """Appends what the payloads tell, and returns whether the answer is whole. What came before a failure stays.

        Text that follows text of the same choice is told as Pieces.
        """
        if self.done or not payloads:
            return self.done
        over = payloads[-1] == DONE
        lines = payloads[:-1] if over else payloads
        try:
            chunks = _decode_lines(b"\n".join(lines))
        except NOT_JSON:
            chunks = []
        if len(chunks) != len(lines):
            # One of them is no chunk, or goes on in the next, or the terminator is among them.
            self._one_by_one(payloads, into)
            return self.done
        run: list[Choice] = []
        for place, chunk in enumerate(chunks):
            choice = self._text(chunk)
            if run and (choice is None or choice.index != run[0].index):
                self._tell(run, into)
                run = []
            if choice is None:
                self._chunk(chunk, lines[place], into)
            else:
                run.append(choice)
        if run:
            self._tell(run, into)
        if over:
            self._end(into)
        return self.done

    def read_whole(self, payload: bytes, into: list[Generated]) -> None:
        """Appends what an answer tells that came as a whole. Choices beyond those asked for are left out."""
        self._chunk(_decoded(payload), payload, into, whole=True)
        self._end(into)

    def _one_by_one(self, payloads: Sequence[bytes], into: list[Generated]) -> None:
        for payload in payloads:
            if payload == DONE:
                self._end(into)
                return
            self._chunk(_decoded(payload), payload, into)

    def _text(self, chunk: Chunk) -> Choice | None:
        """Returns the choice of a chunk that is new text, with its ids, and nothing else: as nearly every chunk is."""
        choices = chunk.choices
        if not self._plain or choices is None or len(choices) != 1 or chunk.usage or chunk.error is not None:
            return None
        choice = choices[0]
        if choice.finish_reason or choice.prompt_token_ids or chunk.prompt_token_ids:
            return None
        delta = choice.delta
        if delta is not None:
            if choice.text or delta.reasoning_content or delta.reasoning or delta.tool_calls:
                return None
            choice.text = delta.content
        if not choice.text or choice.index >= len(self._choices) or self._choices[choice.index].finished:
            return None
        return choice

    def _tell(self, run: list[Choice], into: list[Generated]) -> None:
        """Appends the texts of one choice."""
        state = self._choices[run[0].index]
        channel = state.last = state.text
        if len(run) == 1:
            ids = run[0].token_ids
            if ids:
                state.written += len(ids)
                state.last_id = ids[-1]
            count = len(ids) if ids else None
            into.append(Piece(channel=channel, text=run[0].text or "", token_ids=ids or (), token_count=count))
            return
        token_ids: list[Sequence[int]] = [choice.token_ids or () for choice in run]
        state.written += sum(map(len, token_ids))
        state.last_id = next((ids[-1] for ids in reversed(token_ids) if ids), state.last_id)
        into.append(Pieces(channel=channel, texts=[choice.text or "" for choice in run], token_ids=token_ids))

    def _chunk(self, chunk: Chunk, payload: bytes, into: list[Generated], *, whole: bool = False) -> None:
        if chunk.error is not None:
            raise in_stream(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.prompt_token_ids is not None:
            self._prompt(chunk.prompt_token_ids, into)
        if chunk.choices is None:
            if chunk.usage is None:
                raise _without_choices(payload)
            return
        for choice in chunk.choices:
            if choice.index < len(self._choices):
                self._choice(choice, self._choices[choice.index], into)
            elif not whole:
                raise garbled()

    def _prompt(self, token_ids: list[int], into: list[Generated]) -> None:
        # Each choice tells it; all share one prompt.
        if self._prompt_tokens is None:
            self._prompt_tokens = len(token_ids)
            cached = _totals(self._usage).cached_tokens if self._usage is not None else None
            into.append(PromptRead(prompt_tokens=len(token_ids), cached_tokens=cached or 0, token_ids=token_ids))

    def _choice(self, choice: Choice, state: "_Choice", into: list[Generated]) -> None:
        if choice.prompt_token_ids is not None:
            self._prompt(choice.prompt_token_ids, into)
        told: list[Generated] = []
        if choice.text:
            told.append(state.piece(state.text, choice.text))
        delta = choice.delta or choice.message
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                told.append(state.piece(state.reasoning, reasoning))
            if delta.content:
                told.append(state.piece(state.text, delta.content))
            for place, call in enumerate(delta.tool_calls or ()):
                # In a stream each call says its index, in a whole answer its place does.
                state.call(call, call.index if choice.message is None else place, told)
        self._tokens(choice, state, told)
        if state.finished:
            # vLLM's Rust front end finishes twice; text after the first time is no answer's.
            if told:
                raise garbled()
            return
        into.extend(told)
        if choice.finish_reason:
            into.append(self._done(choice, state))
            state.finished = True
        self._plain = self._logprobs is None

    def _tokens(self, choice: Choice, state: "_Choice", told: list[Generated]) -> None:
        ids = choice.token_ids
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._logprobs is not None:
            logprobs = self._logprobs(places(choice.logprobs), ids or ())
        if not ids and not logprobs:
            return
        pieces = [piece for piece in told if type(piece) is Piece]
        if not pieces:
            # Their text is held back, or they have none: they belong to what was written last.
            pieces = [state.piece(state.last, "")]
            told += pieces
        pieces[-1].logprobs = logprobs
        if ids:
            state.written += len(ids)
            state.last_id = ids[-1]
            pieces[-1].token_count = len(ids)
            if len(pieces) == 1:
                # Of several channels nobody knows whose is which.
                pieces[-1].token_ids = ids

    def _done(self, choice: Choice, state: "_Choice") -> ChoiceDone:
        reason = _FINISH_REASONS.get(choice.finish_reason or "")
        if reason is None:
            raise aborted()
        matched = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
        if reason is FinishReason.STOP:
            if matched is None and state.last_id in self._stop_token_ids:
                # vLLM names no token that is also the model's own end.
                matched = state.last_id
            if not isinstance(matched, list) and self._is_own(matched):
                return ChoiceDone(choice=choice.index, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=matched)
            if state.calls:
                # So vLLM says when the tool was named by the request.
                reason = FinishReason.TOOL_CALLS
        elif reason is FinishReason.LENGTH and self._full(state):
            reason = FinishReason.CONTEXT_LENGTH
        return ChoiceDone(choice=choice.index, finish_reason=reason)

    def _is_own(self, matched: str | int | None) -> bool:
        if isinstance(matched, str):
            return self._stop is None or matched in self._stop
        return matched in self._stop_token_ids

    def _full(self, state: "_Choice") -> bool:
        if self._context_window is None or self._prompt_tokens is None:
            return False
        limited = self._max_tokens is not None and state.written >= self._max_tokens
        return not limited and self._prompt_tokens + state.written >= self._context_window

    def _end(self, into: list[Generated]) -> None:
        if not all(state.finished for state in self._choices):
            raise cut()
        # Only now: some engines count in every chunk, and the last one says it all.
        if self._usage is not None:
            into.append(_totals(self._usage))
        self.done = True


def _decoded(payload: bytes) -> Chunk:
    try:
        return _decode(payload)
    except NOT_JSON as error:
        raise garbled() from error


class _Choice:
    """How far a choice is: its channels, the one that was written last, and its tokens as far as they are told."""

    __slots__ = ("calls", "finished", "index", "last", "last_id", "reasoning", "text", "written")

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = Channel(index)
        self.reasoning = Channel(index, ChannelKind.REASONING)
        self.last = self.text
        self.calls = _NO_CALLS
        self.written = 0
        self.last_id: int | None = None
        self.finished = False

    def piece(self, channel: Channel, text: str) -> Piece:
        """Returns text of a channel."""
        self.last = channel
        return Piece(channel=channel, text=text)

    def call(self, call: Call, index: int, told: list[Generated]) -> None:
        """Appends a part of a tool call, after its head."""
        channel = Channel(self.index, ChannelKind.TOOL_CALL, index)
        function = call.function
        if channel not in self.calls:
            if function is None or not function.name:
                raise garbled()
            self.calls |= {channel}
            self.last = channel
            told.append(CallHead(channel=channel, id=call.id or "", name=function.name))
        if function is not None and function.arguments:
            told.append(self.piece(channel, function.arguments))


def _totals(usage: Usage) -> Totals:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    reasoning = usage.reasoning_tokens
    if reasoning is None and completion is not None:
        reasoning = completion.reasoning_tokens
    return Totals(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=prompt.cached_tokens if prompt is not None else None,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=reasoning,
    )


def _without_choices(payload: bytes) -> EngineError:
    # In SGLang's plain replies the error's fields are at the top; it may be one of those.
    try:
        value = msgspec.json.decode(payload)
    except NOT_JSON:
        return garbled()
    return in_stream(value) if value.get("object") == "error" else garbled()
