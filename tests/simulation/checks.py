"""Whether a schedule kept the promises: P1 to P5 and P11."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from harness.history import Sent, problems_of, sent_from
from simulation import model
from simulation.gateway import Gateway
from simulation.world import World
from tokenwire.domain.cursor import Channel
from tokenwire.domain.events import Dispatched, End, FinishReason
from tokenwire.journal.log import RunLog

# Every limit of the schedules is far below it, and an engine's silence without end far above.
STANDSTILL_MS = 1_000_000
_ENDED_EARLY = (FinishReason.CANCELLED, FinishReason.TIME_LIMIT)


def read_problems(world: World, asked: dict[str, model.Asked]) -> Iterator[str]:
    """Yields what is wrong with what was read and written.

    Args:
        world: the schedule.
        asked: what each request asked for, by its id.
    """
    runs: defaultdict[str, list[str]] = defaultdict(list)
    sent: dict[str, Sent] = {}
    for run_id, known in world.runs.items():
        log = world.log(run_id)
        assert log is not None
        request_id = known[0][1].request_id
        runs[request_id].append(run_id)
        sent[run_id] = sent_from(log, request_id)
        world.fired["taken over"] += len(log.takeovers)
        for marked in log.markers:
            if isinstance(marked.marker, Dispatched) and marked.marker.attempt > 1:
                world.fired[f"went on {marked.marker.continuation.name}"] += 1
        yield from (f"{problem} ({run_id})" for problem in _log_problems(log, asked[request_id]))
        if world.lossy:
            continue
        yield from (f"{problem} ({run_id})" for problem in _copies(world, run_id, log))
    if world.lossy:
        return
    for request_id, ids in runs.items() if not world.alone else ():
        yield from _once(world, request_id, ids)
    for reading in world.readings:
        run_id = reading.run_id or next(iter(runs[reading.request_id]), "")
        if run_id and run_id not in sent:
            yield f"P11: {reading.reader} reads a run that no gateway knows"
        elif run_id:
            yield from (f"{problem} ({reading.reader})" for problem in problems_of(reading, sent[run_id]))


def _log_problems(log: RunLog, asked: model.Asked) -> Iterator[str]:
    numbers = [marked.seq for marked in log.markers] + [seq for channel in log.channels for seq in channel.seqs]
    if sorted(numbers) != list(range(1, log.head + 1)):
        yield "P2: the journal's numbers are not dense"
    ends = [marked.seq for marked in log.markers if isinstance(marked.marker, End)]
    if ends not in ([], [log.head]):
        yield "P1: the journal has not one end at its end"
    end = log.end
    times = sorted(
        [marked.at_ms for marked in log.markers] + [at_ms for channel in log.channels for at_ms in channel.at_ms]
    )
    if any(later - earlier > STANDSTILL_MS for earlier, later in pairwise(times)):
        yield "P4: the run stood still"
    yield from _texts(log, asked, whole=end is not None and end.error is None)


def _texts(log: RunLog, asked: model.Asked, *, whole: bool) -> Iterator[str]:
    """Compares each choice with the truth. Which of the model's answers a choice has is open while it has no text."""
    written = [log.channel(Channel(choice)) for choice in range(asked.n)]
    texts = [one.text.decode() if one else "" for one in written]
    order = _model_choices(asked, texts)
    if order is None:
        yield f"P3: the journal's text is not what the model writes: {texts}"
        return
    end = log.end
    if not whole or end is None or any(one.finish_reason in _ENDED_EARLY for one in end.choices):
        return
    for place, (choice, text) in enumerate(zip(order, texts, strict=True)):
        true, told = model.truth(asked, choice), end.choices[place]
        if text != true.text:
            yield f"P3: the run ended well before all of its text: {text!r} of {true.text!r}"
        elif (told.finish_reason, told.matched_stop) != (true.reason, true.matched):
            yield f"P3: the run says {told.finish_reason.name}, the model {true.reason.name}"


def _model_choices(asked: model.Asked, texts: list[str]) -> tuple[int, ...] | None:
    """Returns which of the model's answers each choice has, or None.

    An engine that goes on with a choice that has no text yet cannot know which one it is.
    """
    truths = [model.truth(asked, choice).text for choice in range(asked.n)]
    fitting = [[choice for choice, true in enumerate(truths) if true.startswith(text)] for text in texts]
    if not all(fitting):
        return None
    return tuple(place if place in found else found[0] for place, found in enumerate(fitting))


def _copies(world: World, run_id: str, final: RunLog) -> Iterator[str]:
    """What one gateway let its readers see, every other one must have, too."""
    for gateway, run in world.runs[run_id]:
        log = run.log
        if log is final or log.dropped:
            continue
        for channel in log.channels:
            mine = bytes(channel.text[: channel.consumed_at(log.committed)[1]])
            other = final.channel(channel.channel)
            if mine and (other is None or not other.text.startswith(mine)):
                yield f"P2: what {gateway.name} had committed is not in the journal"
        if log.committed > final.committed:
            yield f"P2: {gateway.name} had committed {log.committed} events, the journal has {final.committed}"


def _once(world: World, request_id: str, ids: list[str]) -> Iterator[str]:
    """At most one run of a request does not fail."""
    logs = [world.log(run_id) for run_id in ids]
    good = [log for log in logs if log is not None and (log.end is None or log.end.error is None) and log.committed]
    if len(good) > 1:
        yield f"P11: {request_id} has {len(good)} runs that did not fail"


def rest_problems(world: World) -> Iterator[str]:
    """Yields what is left after every run has ended and its retention is over."""
    for machine in world.machines:
        if machine.jobs:
            yield f"P5: {machine.name} still writes"
    for gateway in world.gateways:
        if busy(gateway):
            yield f"P5: {gateway.name} counts runs on its engines"
        if gateway.runs._by_id or gateway.runs._by_request or gateway.runs._accepting or gateway.runs._forgetting:
            yield f"P5: {gateway.name} still knows runs"
        held = getattr(gateway.journal, "held", 0)
        if held:
            yield f"P5: the journal of {gateway.name} still holds {held} bytes"
        for task in world.loop.tasks(gateway.process):
            if not task.get_name().startswith("journal"):
                yield f"P5: {gateway.name} still has a task, {task.get_name()}"


def busy(gateway: Gateway) -> int:
    """Returns how many choices a gateway thinks are being written."""
    return gateway.fleet.places.taken
