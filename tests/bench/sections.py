"""What a report says of each question: a sentence or two, and a table."""

import msgspec

from bench.columns import Column, carrying, figures, scenarios, streams
from bench.goals import BARE, CPU, FIREHOSE, PACED, SGLANG_ROUTER, TOKENWIRE, goals_table
from bench.prefix.reading import Reuse
from bench.prefix.tables import prefix_tables
from bench.results import Results
from bench.rows import CHAT, GENERATE, GRPC_AIO
from bench.scenarios import SCENARIOS
from bench.table import table

COMPANION = "companion_us_per_token"
SATURATION = "saturation"
NOT_MEASURED = "Not measured."
KIB = 1 / 1024
MIB = KIB / 1024


def goals(results: Results) -> str:
    """Returns how the goals stand."""
    text = "tokenwire with everything on and the journal in memory, unless the figure says otherwise."
    return _section(text, goals_table(results))


def cpu(results: Results, scenario: str) -> str:
    """Returns CPU per token under a load."""
    columns = [
        Column(head="CPU per token, us", scenario=scenario, figure=CPU),
        Column(head=f"/ {SGLANG_ROUTER}", scenario=scenario, figure=CPU, to=SGLANG_ROUTER),
        Column(head=f"/ {BARE}", scenario=scenario, figure=CPU, to=BARE),
    ]
    text = f"{_load_of(scenario)}. User and system time of the gateway and its children, without that of the calls."
    if scenario in carrying(results, COMPANION):
        columns.append(Column(head="beside it, us", scenario=scenario, figure=COMPANION))
        text += " Beside it: what a gateway needs to have running, such as Redis, and is not counted with it."
    return _section(text, figures(results, columns))


def calls(results: Results) -> str:
    """Returns the cost of a call."""
    columns = [
        column
        for one in carrying(results, "call_us")
        for column in (
            Column(head="CPU of a call, us", scenario=one, figure="call_us"),
            Column(head=f"/ {SGLANG_ROUTER}", scenario=one, figure="call_us", to=SGLANG_ROUTER),
            Column(head=f"/ {BARE}", scenario=one, figure="call_us", to=BARE),
        )
    ]
    text = "CPU time of a call with one token; 100 at the same time, again and again, each time over new connections."
    return _section(text, figures(results, columns))


def latency(results: Results) -> str:
    """Returns added latency by number of streams."""
    parts = ["From the engine's write of a token to its arrival at the client."]
    for scenario in scenarios(results, "latency"):
        columns = [
            Column(head=f"{name}, us", scenario=scenario, figure=f"added_{name.replace('.', '')}_us")
            for name in ("p50", "p99", "p99.9")
        ]
        columns += [
            Column(head=f"{name} / {SGLANG_ROUTER}", scenario=scenario, figure=f"added_{name}_us", to=SGLANG_ROUTER)
            for name in ("p50", "p99")
        ]
        parts.append(f"### {_load_of(scenario)}\n\n{figures(results, columns)}")
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NOT_MEASURED])


def first_token(results: Results) -> str:
    """Returns the time to the first token by number of streams."""
    parts = [
        "From a call to its first token, where the engine answers at once: set-up, the way there and the way back."
    ]
    for percentile in ("p50", "p99"):
        columns = [
            Column(head=f"{streams(one)} at once, ms", scenario=one, figure=f"ttft_{percentile}_us", factor=1e-3)
            for one in scenarios(results, "ttft")
        ]
        found = figures(results, columns)
        if found:
            parts.append(f"### {percentile}\n\n{found}")
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NOT_MEASURED])


def memory(results: Results) -> str:
    """Returns resident memory."""
    kinds = sorted(scenarios(results, "memory"), key=streams, reverse=True)
    columns = [
        Column(head=f"a stream at {streams(one)}, KiB", scenario=one, figure="rss_bytes_per_stream", factor=KIB)
        for one in kinds
    ]
    columns += [Column(head="idle, MiB", scenario=one, figure="rss_idle_bytes", factor=MIB) for one in kinds[:1]]
    text = (
        "Resident memory of a gateway's processes: what each open stream adds to it, and what it is before the first."
    )
    return _section(text, figures(results, columns))


def messages(results: Results) -> str:
    """Returns messages and system calls per token."""
    columns = [
        Column(head=f"{what} ({one})", scenario=one, figure=figure)
        for what, figure in (("messages", "messages_per_token"), ("system calls", "syscalls_per_token"))
        for one in carrying(results, figure)
        if one in (PACED, FIREHOSE) or what == "system calls"
    ]
    text = "Fewer than 1 message a token: several tokens came in one. System calls: of all processes of a gateway."
    return _section(text, figures(results, columns))


def saturation(results: Results) -> str:
    """Returns what one process carries."""
    figure = "tokens_per_second"
    columns = [
        Column(head="tokens a second", scenario=SATURATION, figure=figure),
        Column(head=f"/ {SGLANG_ROUTER}", scenario=SATURATION, figure=figure, to=SGLANG_ROUTER),
        Column(head="streams", scenario=SATURATION, figure="streams"),
        Column(head="CPU per token, us", scenario=SATURATION, figure=CPU),
    ]
    text = (
        "The most that one process carries of paced streams: a core is used up, or with more streams half of all "
        "tokens would wait for a tenth of a second or longer. More is better."
    )
    return _section(text, figures(results, columns, largest_first=True))


def two_processes(results: Results) -> str:
    """Returns what two carry."""
    scenario, figure = "two-processes", "tokens_per_second"
    columns = [
        Column(head="tokens a second, two processes", scenario=scenario, figure=figure),
        Column(head="/ one process", scenario=scenario, figure=figure, to_scenario=SATURATION),
    ]
    text = "The same of two processes that share the streams, on cores shared with the load programs. More is better."
    return _section(text, figures(results, columns, largest_first=True))


def dialects(results: Results) -> str:
    """Returns what the engine's dialects cost, and the other transport."""
    columns = [
        Column(head="CPU per token, us", scenario=PACED, figure=CPU),
        Column(head="/ completions", scenario=PACED, figure=CPU, to=TOKENWIRE),
        Column(head="added p50, us", scenario=PACED, figure="added_p50_us"),
    ]
    text = (
        f"What the engine speaks: {TOKENWIRE}: vLLM's completions; {CHAT}: vLLM's chat; {GENERATE}: SGLang's generate. "
        f"What speaks with the clients: {GRPC_AIO}: gRPC's C core; all others: tokenwire's own transport. "
        f"{_load_of(PACED)}."
    )
    return _section(text, figures(results, columns, only=(TOKENWIRE, CHAT, GENERATE, GRPC_AIO)))


def load(results: Results) -> str:
    """Returns what the load programs cost."""
    columns = [
        Column(head=f"{who}, us a {what} ({one})", scenario=one, figure=f"{who}_us_per_{what}")
        for one, what in ((PACED, "token"), (FIREHOSE, "token"), ("call", "call"))
        for who in ("client", "engine")
        if one in carrying(results, f"{who}_us_per_{what}")
    ]
    text = (
        "CPU of the client and of the engine's stand-in, while a gateway was measured. A run in which either comes "
        "near what a core can do is void."
    )
    return _section(text, figures(results, columns))


def checks(results: Results) -> str:
    """Returns what the load programs of others have counted."""
    heads = list(dict.fromkeys(name for check in results.checks for name in check))
    rows = [[_value(check.get(name, "-")) for name in heads] for check in results.checks]
    text = "The same load by programs of others, and what they counted."
    return _section(text, table([one.replace("_", " ") for one in heads], rows, left=len(heads)) if rows else "")


def prefix(results: Results) -> str:
    """Returns prefix reuse on real engines."""
    text = (
        "Time to the first token on real engines, through tokenwire: prompts that the engine has never read, has read "
        "before, or has read the beginning of, and a conversation that grows. That many tokens are "
        "cached shows that the gateway keeps a prefix as it is; how much time that saves is the engine's."
    )
    engines = [msgspec.convert(one, Reuse) for one in results.prefix.values()]
    return _section(text, prefix_tables(engines) if engines else "")


def _section(text: str, found: str) -> str:
    return f"{text}\n\n{found or NOT_MEASURED}"


def _load_of(scenario: str) -> str:
    """Tells a load in words."""
    count = streams(scenario)
    found = next((one for one in SCENARIOS if one.name == scenario), None)
    text = f"{count} stream{'s' if count != 1 else ''}"
    if found is None:
        return text
    if not found.rate:
        return f"{text}, as fast as the gateway takes it"
    return f"{text}{', each' if count != 1 else ''} at {found.rate} tokens a second"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:g}" if isinstance(value, float) else str(value)
