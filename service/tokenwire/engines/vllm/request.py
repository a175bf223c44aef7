"""A run's request as a body for vLLM."""

import hashlib
from typing import Any

from tokenwire.domain.generation import Job
from tokenwire.domain.request import Constraint, KvOptions, Logprobs, Output, Sampling, Submission
from tokenwire.engines.openai.request import CHAT_PATH, STREAMED, common_body, only_set
from tokenwire.engines.openai.tools import tool_fields
from tokenwire.engines.schemas import json_object
from tokenwire.engines.vllm.server import Server

# vLLM's --max-logprobs unless it was started with another.
MAX_LOGPROBS_DEFAULT = 20
MAX_SALT_CHARACTERS = 128
# Salts become parts of paths there.
_NOT_IN_SALTS = frozenset("@/\\\0")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def is_whole(submission: Submission) -> bool:
    """Tells whether vLLM answers such a request as a whole only."""
    return submission.sampling.beam_search is not None or submission.output.prompt_logprobs is not None


def endpoint_and_body(job: Job, server: Server, *, request_id: str, own_salt: str) -> tuple[str, dict[str, Any]]:
    """Returns the path to post to and the body: a chat for messages, else a completion.

    A prompt whose tokens are known is sent as tokens, whatever it was asked as: they are exact, and vLLM need not find
    them again.

    Args:
        job: what to do.
        server: what is known of vLLM.
        request_id: the id by which the request can be aborted; no other may have it.
        own_salt: a salt that no other request has, for one that must not use cached prefixes.
    """
    submission = job.submission
    sampling, stopping = submission.sampling, submission.stopping
    path, body = common_body(job)
    body |= tools_told(submission, server)
    body |= {"request_id": request_id, "return_token_ids": True}
    if not is_whole(submission):
        # Without continuous_usage_stats: it makes every chunk a third longer, the ids tell the counts, and cached
        # tokens come at the end with it too.
        body |= STREAMED
    body |= only_set(
        {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "min_tokens": stopping.min_tokens,
            "stop_token_ids": list(stopping.stop_token_ids) or None,
            "ignore_eos": stopping.ignore_eos,
            "skip_special_tokens": stopping.skip_special_tokens,
            "include_stop_str_in_output": stopping.include_stop,
            # Here the smaller goes first.
            "priority": -submission.run.priority if submission.run.priority else None,
            "cache_salt": _salt(submission.kv, own_salt),
            "structured_outputs": None if submission.constraint is None else _constraint(submission.constraint, server),
        }
    )
    return path, body | _beam_search(sampling) | _told(submission.output, chat=path == CHAT_PATH)


def tools_told(submission: Submission, server: Server) -> dict[str, Any]:
    """Returns the fields of a chat's body that are about tools; they are part of the prompt.

    Where a server cannot hold a model to its tools, those that do not ask for it are told without it.
    """
    fields = tool_fields(submission)
    if server.rust and server.tags is False:
        for tool in fields.get("tools", ()):
            tool["function"].pop("strict", None)
    return fields


def _beam_search(sampling: Sampling) -> dict[str, Any]:
    beams = sampling.beam_search
    if beams is None:
        return {}
    # vLLM returns as many choices as it keeps beams.
    return {"use_beam_search": True, "n": beams.width} | only_set({"length_penalty": beams.length_penalty})


def _told(output: Output, *, chat: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if output.prompt_logprobs is not None:
        fields["prompt_logprobs"] = -1 if output.prompt_logprobs.all else output.prompt_logprobs.top_n or 0
    asked = output.logprobs
    if asked is None:
        return fields
    # By id: texts are not unique, and of equal ones a completion tells one alone.
    fields["return_tokens_as_token_ids"] = True
    if asked.token_ids and not asked.all:
        fields["logprob_token_ids"] = list(asked.token_ids)
    if chat:
        return fields | {"logprobs": True, "top_logprobs": _top_of_chat(asked)}
    return fields | {"logprobs": -1 if asked.all else asked.top_n or 0}


def _top_of_chat(asked: Logprobs) -> int:
    """Returns how many to ask for.

    A chat tells so many of the chosen token and the best ones, in this order. So where the chosen one is not among the
    best, the last of them is missing unless one more is asked for; but not beyond what servers take.
    """
    if asked.all:
        return -1
    top_n = asked.top_n or 0
    return top_n + 1 if 0 < top_n < MAX_LOGPROBS_DEFAULT else top_n


def _salt(kv: KvOptions, own_salt: str) -> str | None:
    if kv.bypass:
        return own_salt
    salt = kv.cache_salt
    if salt and (len(salt) > MAX_SALT_CHARACTERS or not _NOT_IN_SALTS.isdisjoint(salt)):
        return hashlib.sha256(salt.encode()).hexdigest()
    return salt


def _constraint(constraint: Constraint, server: Server) -> dict[str, Any]:
    # Not response_format, which has three of them, nor guided_*, which vLLM passes over in silence.
    if constraint.json_schema is not None:
        return {"json": json_object(constraint.json_schema, "constraint.json_schema")}
    if constraint.choice:
        # What the Python front end makes of it, the Rust front end leaves to the engine, which cannot with xgrammar.
        return {"grammar": _grammar(constraint.choice)} if server.rust else {"choice": list(constraint.choice)}
    return only_set(
        {
            "regex": constraint.regex,
            "grammar": constraint.grammar,
            "json_object": constraint.json_object,
            "structural_tag": constraint.structural_tag,
        }
    )


def _grammar(choice: tuple[str, ...]) -> str:
    return "root ::= " + " | ".join(f'"{one.translate(_ESCAPES)}"' for one in choice)
