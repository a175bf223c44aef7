"""From the events of one `/generate` to what domain/generation.py says."""

from collections.abc import Sequence

import msgspec

from tokenwire.domain.cursor import Channel
from tokenwire.domain.errors import EngineError
from tokenwire.domain.events import FinishReason
from tokenwire.domain.generation import ChoiceDone, Generated, Piece, PromptLogprobs, PromptRead, Totals
from tokenwire.domain.request import Submission
from tokenwire.engines.failure import aborted, cut, garbled, overloaded, refusal
from tokenwire.engines.sglang.choice import Written
from tokenwire.engines.sglang.logprobs import of_prompt, of_step
from tokenwire.engines.sglang.server import Server
from tokenwire.engines.sglang.wire import DONE, Finish, Meta, decode_event


class Answer:
    """Reads one stream, payload by payload.

    Args:
        submission: what was asked for.
        prompt_ids: the prompt's ids, if it was sent as such.
        server: what is known of the server.

    Attributes:
        done: whether the stream's terminator came with every choice finished; nothing after it is read.
        ids: the server's names of the choices, as far as they have begun.
    """

    def __init__(self, submission: Submission, prompt_ids: Sequence[int], server: Server) -> None:
        self.done = False
        self.ids: dict[int, str] = {}
        self._stopping = submission.stopping
        self._max_tokens = submission.stopping.max_tokens or server.default_max_tokens
        self._logprobs = submission.output.logprobs
        self._prompt_logprobs = submission.output.prompt_logprobs
        self._prompt_ids = prompt_ids
        self._choices = [
            Written(incremental=server.incremental, unknown_character=server.unknown_character)
            for _ in range(submission.n)
        ]
        self._channels = [Channel(index) for index in range(submission.n)]
        self._prompt: PromptRead | None = None
        self._reasoning: dict[int, int] = {}

    def read(self, payloads: Sequence[bytes], into: list[Generated]) -> None:
        """Appends what the payloads tell. What came before a failure stays appended."""
        for payload in payloads:
            if self.done:
                return
            if payload == DONE:
                self._end(into)
                return
            event, meta = decode_event(payload)
            index = event.index
            if index >= len(self._choices) or self._choices[index].ended:
                raise garbled()
            if meta.id:
                self.ids[index] = meta.id
            choice, finish = self._choices[index], meta.finish_reason
            if finish is not None and finish.status_code is not None:
                # Such a request was not answered: its event may hold a made-up token, and counts of another prompt.
                raise _given_up(finish)
            self._tell_prompt(meta, into)
            step = choice.take(event, meta)
            if step.text or step.first != step.end:
                wanted = self._logprobs
                into.append(
                    Piece(
                        channel=self._channels[index],
                        text=step.text,
                        token_ids=step.token_ids,
                        token_count=step.end - step.first,
                        logprobs=of_step(meta, step, wanted) if wanted is not None else (),
                    )
                )
            if meta.reasoning_tokens is not None:
                self._reasoning[index] = meta.reasoning_tokens
            if finish is not None:
                into.append(self._finished(index, finish, choice.tokens))
                choice.ended = True

    def _tell_prompt(self, meta: Meta, into: list[Generated]) -> None:
        # Each choice tells it; all share one prompt.
        if self._prompt is None and meta.prompt_tokens is not None:
            known = self._prompt_ids if len(self._prompt_ids) == meta.prompt_tokens else ()
            self._prompt = PromptRead(
                prompt_tokens=meta.prompt_tokens, cached_tokens=meta.cached_tokens or 0, token_ids=known
            )
            into.append(self._prompt)
        if self._prompt_logprobs is not None and meta.input_token_logprobs:
            into.append(PromptLogprobs(logprobs=of_prompt(meta, self._prompt_logprobs)))
            self._prompt_logprobs = None

    def _finished(self, index: int, finish: Finish, tokens: int) -> ChoiceDone:
        if finish.type == "abort":
            raise _given_up(finish)
        if finish.type == "length":
            # A choice is also ended where the window is.
            full = tokens < self._max_tokens
            return ChoiceDone(choice=index, finish_reason=FinishReason.CONTEXT_LENGTH if full else FinishReason.LENGTH)
        if finish.type != "stop":
            raise aborted()
        # Any other match is the model's own end, or an ending that the server's operator set.
        if finish.matched in self._stopping.stop or finish.matched in self._stopping.stop_token_ids:
            return ChoiceDone(choice=index, finish_reason=FinishReason.STOP_SEQUENCE, matched_stop=finish.matched)
        return ChoiceDone(choice=index, finish_reason=FinishReason.STOP)

    def _end(self, into: list[Generated]) -> None:
        if not all(choice.ended for choice in self._choices):
            raise cut()
        if self._prompt_logprobs is not None:
            # They were asked for and never came.
            raise garbled()
        into.append(
            Totals(
                prompt_tokens=self._prompt.prompt_tokens if self._prompt is not None else None,
                cached_tokens=self._prompt.cached_tokens if self._prompt is not None else None,
                output_tokens=sum(choice.tokens for choice in self._choices),
                reasoning_tokens=sum(self._reasoning.values()) if self._reasoning else None,
            )
        )
        self.done = True


def _given_up(finish: Finish) -> EngineError:
    """Returns what it means that a choice was given up: the queue is full, a more urgent one came, it was refused."""
    status = finish.status_code
    if status == 503:
        return overloaded()
    if status is not None and 400 <= status < 500:
        return refusal(status, msgspec.json.encode({"error": {"message": finish.message or ""}}))
    return aborted()
