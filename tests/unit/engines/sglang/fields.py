"""A request for each field that SGLang takes: one that asks for it, and the same without it."""

from dataclasses import replace

from tokenwire.domain.request import (
    Constraint,
    KvOptions,
    Logprobs,
    Message,
    Output,
    ReasoningEffort,
    Role,
    RunOptions,
    Sampling,
    SamplingPreset,
    Stopping,
    Submission,
    Tool,
    ToolCall,
    ToolMode,
)

USER = Message(role=Role.USER, content="hi")
ANSWERED = Message(role=Role.ASSISTANT, content="")
CALL = ToolCall(id="c1", name="f", arguments='{"a":1}')
TOOL = Tool(name="f", strict=False)
# A chat that only the chat endpoint can answer, and one that is rendered.
CHAT = Submission(messages=(USER,), reasoning=ReasoningEffort.LOW)
PLAIN = Submission(messages=(USER,))
TOOLS = Submission(messages=(USER,), tools=(TOOL,))

SAMPLING: dict[str, Sampling] = {
    "preset": Sampling(preset=SamplingPreset.BALANCED),
    "temperature": Sampling(temperature=0.0),
    "top_p": Sampling(top_p=0.5),
    "top_k": Sampling(top_k=3),
    "min_p": Sampling(min_p=0.25),
    "repetition_penalty": Sampling(repetition_penalty=1.5),
    "presence_penalty": Sampling(presence_penalty=0.5),
    "frequency_penalty": Sampling(frequency_penalty=0.75),
    "seed": Sampling(seed=7),
    "logit_bias": Sampling(logit_bias=((5, 1.5),)),
    "n": Sampling(n=2),
}
STOPPING: dict[str, Stopping] = {
    "max_tokens": Stopping(max_tokens=9),
    "min_tokens": Stopping(min_tokens=3),
    "stop": Stopping(stop=("a", "b")),
    "stop_token_ids": Stopping(stop_token_ids=(4, 5)),
    "ignore_eos": Stopping(ignore_eos=True),
    "skip_special_tokens": Stopping(skip_special_tokens=False),
    "include_stop": Stopping(include_stop=True),
}
TAG = '{"type":"structural_tag","structures":[],"triggers":[]}'
CONSTRAINTS: dict[str, Constraint] = {
    "json_schema": Constraint(json_schema='{"type":"object","maxProperties":18446744073709551616}'),
    "regex": Constraint(regex="a+"),
    "grammar": Constraint(grammar='root ::= "a"'),
    "choice": Constraint(choice=("a.b", "c")),
    "json_object": Constraint(json_object=True),
    "structural_tag": Constraint(structural_tag=TAG),
}
OUTPUTS: dict[str, Output] = {
    "logprobs.top_n": Output(logprobs=Logprobs(top_n=2)),
    "logprobs.token_ids": Output(logprobs=Logprobs(token_ids=(6, 5))),
    "prompt_logprobs.top_n": Output(prompt_logprobs=Logprobs(top_n=3)),
    "prompt_logprobs.token_ids": Output(prompt_logprobs=Logprobs(token_ids=(5, 7))),
}


def asking(base: Submission) -> dict[str, Submission]:
    """Returns a request for each field that is no part of a prompt, made of one that asks for none of them."""
    return {
        **{f"sampling.{name}": replace(base, sampling=value) for name, value in SAMPLING.items()},
        **{f"stopping.{name}": replace(base, stopping=value) for name, value in STOPPING.items()},
        **{f"constraint.{name}": replace(base, constraint=value) for name, value in CONSTRAINTS.items()},
        **{f"output.{name}": replace(base, output=value) for name, value in OUTPUTS.items()},
        "run.priority": replace(base, run=RunOptions(priority=5)),
        "kv.cache_salt": replace(base, kv=KvOptions(cache_salt="s")),
        "kv.bypass": replace(base, kv=KvOptions(bypass=True)),
    }


def _with(message: Message) -> Submission:
    return Submission(messages=(USER, message))


# Parts of a chat's prompt: with the field, and without.
RENDERED: dict[str, tuple[Submission, Submission]] = {
    "messages.role=SYSTEM": (_with(replace(USER, role=Role.SYSTEM)), _with(USER)),
    "messages.role=USER": (_with(USER), _with(replace(USER, role=Role.SYSTEM))),
    "messages.role=ASSISTANT": (_with(replace(USER, role=Role.ASSISTANT)), _with(USER)),
    "messages.role=TOOL": (_with(replace(USER, role=Role.TOOL)), _with(USER)),
    "messages.content": (_with(replace(USER, content="x")), _with(USER)),
    "messages.tool_calls": (_with(replace(ANSWERED, tool_calls=(CALL,))), _with(ANSWERED)),
    "messages.tool_call_id": (_with(replace(ANSWERED, tool_call_id="c1")), _with(ANSWERED)),
    "messages.name": (_with(replace(ANSWERED, name="Ada")), _with(ANSWERED)),
    "tools.name": (TOOLS, PLAIN),
    "tools.description": (replace(TOOLS, tools=(replace(TOOL, description="d"),)), TOOLS),
    "tools.parameters_schema": (replace(TOOLS, tools=(replace(TOOL, parameters_schema='{"a":1}'),)), TOOLS),
    "tools.strict": (replace(TOOLS, tools=(replace(TOOL, strict=True),)), TOOLS),
    "tool_choice.mode=AUTO": (replace(TOOLS, tool_choice=ToolMode.AUTO), TOOLS),
    "tool_choice.mode=NONE": (replace(TOOLS, tool_choice=ToolMode.NONE), TOOLS),
    "tool_choice.mode=REQUIRED": (replace(TOOLS, tool_choice=ToolMode.REQUIRED), TOOLS),
    "tool_choice.name": (replace(TOOLS, tool_choice="f"), TOOLS),
    "parallel_tool_calls": (replace(TOOLS, parallel_tool_calls=False), TOOLS),
    **{f"reasoning.effort={effort.name}": (replace(PLAIN, reasoning=effort), PLAIN) for effort in ReasoningEffort},
}
