"""A run's request as a body of the native `/generate`."""

from collections.abc import Sequence
from typing import Any

from tokenwire.domain.errors import InvalidRequestError
from tokenwire.domain.generation import Job
from tokenwire.domain.request import Sampling, Stopping, Submission
from tokenwire.engines.openai.request import only_set
from tokenwire.engines.presets import temperature_and_top_p
from tokenwire.engines.sglang.constraint import native
from tokenwire.engines.sglang.logprobs import asked
from tokenwire.engines.sglang.server import Server

PATH = "/generate"


def request_names(request_id: str, submission: Submission, server: Server) -> tuple[str, ...]:
    """Returns SGLang's names for a request to `/generate`: one, or one for each choice where they are sent apart."""
    if server.rust and submission.n > 1:
        return tuple(f"{request_id}-{index}" for index in range(submission.n))
    return (request_id,)


def sent_ids(job: Job) -> Sequence[int]:
    """Returns the ids of the prompt, if it is sent as such."""
    return job.prompt.token_ids or job.submission.prompt_ids


def generate_body(job: Job, server: Server, request_id: str, salt: str) -> dict[str, Any]:
    """Returns the body.

    Args:
        job: what to do.
        server: what is known of the server.
        request_id: SGLang's name for the request, unique among those that run.
        salt: for a request that shall not use cached prefixes.

    Raises InvalidRequestError for a prompt without tokens: SGLang dies of it (seen on CPU), with everybody's requests.
    """
    submission, names = job.submission, request_names(request_id, job.submission, server)
    body: dict[str, Any] = {
        **_prompt(job),
        "rid": request_id,
        "stream": True,
        "sampling_params": {**_sampling(submission.sampling), **_stopping(submission.stopping)},
        **run_and_cache(submission, server, salt),
    }
    if submission.constraint is not None:
        body["sampling_params"].update(native(submission.constraint))
    if len(names) > 1:
        _send_apart(body, names)
    told = asked(submission.output)
    if told is not None:
        body["return_logprob"] = True
        body["return_text_in_logprobs"] = True
        body["logprob_start_len"] = -1 if submission.output.prompt_logprobs is None else 0
        body["top_logprobs_num"] = told.top_n
        if told.token_ids:
            body["token_ids_logprob"] = list(told.token_ids)
    return body


def run_and_cache(submission: Submission, server: Server, salt: str) -> dict[str, Any]:
    """Returns the fields of a run's life and of the KV cache, which both endpoints have."""
    fields: dict[str, Any] = {}
    priority = submission.run.priority or 0
    # SGLang's own default is below every number; where it does not look at numbers it may refuse them, 0 included.
    if server.priorities:
        fields["priority"] = server.priorities * priority
    elif priority:
        fields["priority"] = priority
    if submission.kv.bypass:
        fields["cache_salt"] = salt
    elif submission.kv.cache_salt:
        fields["cache_salt"] = submission.kv.cache_salt
    return fields


def top_k(sampling: Sampling) -> int | None:
    """Returns SGLang's figure: all tokens are -1."""
    return -1 if sampling.top_k == 0 else sampling.top_k


def _prompt(job: Job) -> dict[str, Any]:
    ids = sent_ids(job)
    if ids:
        return {"input_ids": list(ids)}
    text = job.submission.prompt if job.prompt.text is None else job.prompt.text
    if not text:
        raise InvalidRequestError("prompt", "is empty")
    return {"text": text}


def _send_apart(body: dict[str, Any], names: Sequence[str]) -> None:
    """Makes several prompts with one choice of one prompt with several choices, which the Rust server does not have."""
    key = "input_ids" if "input_ids" in body else "text"
    body[key] = [body[key]] * len(names)
    body["rid"] = names
    del body["sampling_params"]["n"]


def _sampling(sampling: Sampling) -> dict[str, Any]:
    temperature, top_p = temperature_and_top_p(sampling)
    return only_set(
        {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k(sampling),
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "sampling_seed": sampling.seed,
            "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias} or None,
            "n": sampling.n,
        }
    )


def _stopping(stopping: Stopping) -> dict[str, Any]:
    return only_set(
        {
            "max_new_tokens": stopping.max_tokens,
            "min_new_tokens": stopping.min_tokens,
            "stop": list(stopping.stop) or None,
            "stop_token_ids": list(stopping.stop_token_ids) or None,
            "ignore_eos": stopping.ignore_eos,
            "skip_special_tokens": stopping.skip_special_tokens,
            "no_stop_trim": stopping.include_stop,
        }
    )
