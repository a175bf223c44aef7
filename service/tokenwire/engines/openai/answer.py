"""An OpenAI stream as domain values."""

from collections.abc import Sequence

import msgspec

from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Piece, Totals
from tokenwire.engines.failure import NOT_JSON, aborted, cut, garbled, in_stream
from tokenwire.engines.openai.wire import Choice, Chunk, Delta, Usage

DONE = b"[DONE]"

_decode = msgspec.json.Decoder(Chunk).decode

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}


class Answer:
    """Reads one stream, payload by payload.

    Args:
        choices: how many choices were asked for.

    Attributes:
        done: whether the stream's terminator came with every choice finished; nothing after it is read.
    """

    def __init__(self, choices: int) -> None:
        self.done = False
        self._texts = [Channel(choice) for choice in range(choices)]
        self._reasonings = [Channel(choice, ChannelKind.REASONING) for choice in range(choices)]
        self._calls: set[Channel] = set()
        self._finished: set[int] = set()
        self._usage: Usage | None = None

    def read(self, payloads: Sequence[bytes], into: list[Generated]) -> None:
        """Appends what the payloads tell. What came before a failure stays appended."""
        for payload in payloads:
            if self.done:
                return
            if payload == DONE:
                self._end(into)
                return
            try:
                chunk = _decode(payload)
            except NOT_JSON as error:
                raise garbled() from error
            if chunk.error is not None:
                raise in_stream(chunk.error)
            if chunk.usage is not None:
                self._usage = chunk.usage
            if chunk.choices is None:
                if chunk.usage is None:
                    raise _without_choices(payload)
                continue
            for choice in chunk.choices:
                self._choice(choice, into)

    def _choice(self, choice: Choice, into: list[Generated]) -> None:
        index = choice.index
        if index >= len(self._texts):
            raise garbled()
        before = len(into)
        if choice.text:
            into.append(Piece(channel=self._texts[index], text=choice.text))
        delta = choice.delta
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                into.append(Piece(channel=self._reasonings[index], text=reasoning))
            if delta.content:
                into.append(Piece(channel=self._texts[index], text=delta.content))
            if delta.tool_calls:
                self._tool_calls(index, delta, into)
        if index in self._finished:
            # vLLM's Rust front end finishes twice; text after the first time is no answer's.
            if len(into) > before:
                del into[before:]
                raise garbled()
        elif choice.finish_reason:
            into.append(_done(choice))
            self._finished.add(index)

    def _tool_calls(self, choice: int, delta: Delta, into: list[Generated]) -> None:
        for call in delta.tool_calls or ():
            channel = Channel(choice, ChannelKind.TOOL_CALL, call.index)
            function = call.function
            if channel not in self._calls:
                if function is None or not function.name:
                    raise garbled()
                self._calls.add(channel)
                into.append(CallHead(channel=channel, id=call.id or "", name=function.name))
            if function is not None and function.arguments:
                into.append(Piece(channel=channel, text=function.arguments))

    def _end(self, into: list[Generated]) -> None:
        if len(self._finished) < len(self._texts):
            raise cut()
        # Only now: some engines count in every chunk, and the last one says it all.
        if self._usage is not None:
            into.append(_totals(self._usage))
        self.done = True


def _done(choice: Choice) -> ChoiceDone:
    reason = _FINISH_REASONS.get(choice.finish_reason or "")
    if reason is None:
        raise aborted()
    matched = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
    # A number is an end-of-text token, as no stop token ids are asked for.
    if reason is FinishReason.STOP and isinstance(matched, str):
        return ChoiceDone(choice=choice.index, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=matched)
    return ChoiceDone(choice=choice.index, finish_reason=reason)


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
