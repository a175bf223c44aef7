"""The journal that several gateways share, as a model: everything that can happen within small bounds is tried.

One run, one store (Redis), two or three gateways, one reader that goes where it likes. `python docs/model/journal.py`
searches breadth first, then once more without each of the protections, and shows the harm. README.md tells the rest.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

# An event is written "2B5": number 2 of the run, by gateway B, in epoch 5. So a text that differs can be seen.
Text = tuple[str, ...]
# What a store ever had: epoch, gateway, last number.
Had = tuple[tuple[int, str, int], ...]

HOLDS = (
    "What a reader has seen is the beginning of what it is served, wherever it goes on.",
    "As long as the store forgets nothing and everything is kept, all that any reader was shown is in the store.",
    "A store that forgets loses nothing as long as the run's one writer lives.",
    "A reader is refused only if the end of what it saw, or the epoch it read in, is lost.",
    "The appends of one epoch are those of one gateway.",
    "Nobody sees an event that the store never had, unless there was an outage and the policy is to go on.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protections:
    """What keeps a stream whole: the design has all of them."""

    fence: bool = True  # the store takes no append of an older epoch, or of another gateway in the same one
    publish_after_write: bool = True  # readers see an event once the store has it, unless the store cannot be reached
    head_check: bool = True  # the store takes an append only if it follows its last event
    cursor_epoch: bool = True  # a cursor tells the epoch of the log that it comes from
    newer_cursor: bool = True  # a log does not serve a cursor of a newer epoch than its own
    unique_epochs: bool = True  # a store that has forgotten an epoch does not give the same number out again
    known_epochs: bool = True  # a cursor of an older epoch that the run never had is refused
    wait_when_behind: bool = True  # a cursor beyond the log is told to come back, not that it is wrong
    copies_checked: bool = True  # a copy that follows the store is checked, as a cursor is, whenever it gets more


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may happen."""

    gateways: int = 2
    events: int = 2  # of any log
    batch: int = 2  # new events in one append
    take_overs: int = 1
    crashes: int = 0
    timeouts: int = 0  # appends whose answer is not waited for: they were executed, will be, or never are
    losses: int = 0  # the store forgets all, or goes back to any earlier state
    unkept: int = 0  # journal_outage=continue: events are published without being kept


WORLDS = {
    "gateways die and answers are lost": Bounds(events=3, crashes=1, timeouts=1),
    "the store cannot be reached": Bounds(crashes=1, timeouts=1, unkept=1),
    "the store forgets": Bounds(crashes=1, losses=1),
    "the store forgets, and answers are lost": Bounds(batch=1, timeouts=1, losses=1),
    "the store forgets a take-over": Bounds(batch=1, take_overs=2, losses=1),
    "the store cannot be reached, and forgets": Bounds(batch=1, crashes=1, losses=1, unkept=1),
    "three gateways": Bounds(gateways=3, events=1, batch=1, take_overs=2, crashes=1, losses=1),
}
# A world in which a protection is missed soon.
MISSED = dict.fromkeys(("fence", "publish_after_write", "wait_when_behind"), "gateways die and answers are lost")
MISSED |= dict.fromkeys(("cursor_epoch", "newer_cursor"), "the store cannot be reached")
MISSED |= dict.fromkeys(("unique_epochs", "copies_checked"), "the store forgets a take-over")
MISSED |= {"head_check": "gateways die and answers are lost", "known_epochs": "three gateways"}


class Writer(NamedTuple):
    """Who wrote after which event."""

    epoch: int
    gateway: str
    head: int


class Store(NamedTuple):
    """What the store holds of the run; the last of the writers is the one that it knows."""

    stream: Text
    writers: tuple[Writer, ...]
    lease_over: bool


class Asked(NamedTuple):
    """A request to the store: an append, or, with `again`, the run itself without its events."""

    gateway: str
    epoch: int
    first: int
    events: Text
    again: tuple[Writer, ...] = ()
    answer: str = ""  # ok; head: it does not follow the store's last event; fenced; missing
    head: int = 0  # the store's last event


class Gateway(NamedTuple):
    """A gateway. One that takes no step while others do is a stopped one (SIGSTOP, a long pause, a cut line)."""

    name: str
    writers: tuple[Writer, ...] = ()  # as far as it knows; empty: it does not write the run
    log: Text = ()
    committed: int = 0  # what its readers may see
    known: int = -1  # the store's head, as far as it knows; -1: the store has to be given the run again
    asked: Asked | None = None
    dead: bool = False


class Reader(NamedTuple):
    """What it has seen, and the epoch in its cursor; the cursor's number is how much it has seen."""

    seen: Text = ()
    epoch: int = 0
    refused: bool = False
    copy: str = ""  # without `copies_checked`: the gateway with a copy that it follows


class Left(NamedTuple):
    """How much may still happen, and the newest epoch that was ever given out."""

    take_overs: int
    crashes: int
    timeouts: int
    losses: int
    unkept: int
    newest: int


class State(NamedTuple):
    """Everything; `had` is no part of the system."""

    store: Store | None
    gateways: tuple[Gateway, ...]
    late: Asked | None  # a request that nobody waits for any more, and that may still arrive
    reader: Reader
    left: Left
    had: Had = ()


# What happened, the state after it, and the harm in it, or "". Of what a gateway does also the gateway after it.
Step = tuple[str, State, str]
Move = tuple[str, Gateway, State, str]


def begin(bounds: Bounds) -> State:
    """A has accepted the run: it is in the store, without events."""
    writers = (Writer(1, "A", 0),)
    others = tuple(Gateway(name) for name in "BC"[: bounds.gateways - 1])
    left = Left(bounds.take_overs, bounds.crashes, bounds.timeouts, bounds.losses, bounds.unkept, 1)
    return State(Store((), writers, False), (Gateway("A", writers, known=0), *others), None, Reader(), left)


def steps(state: State, on: Protections, bounds: Bounds) -> Iterator[Step]:
    """All that can happen next."""
    yield from _store(state)
    if state.late is not None:
        store, asked, had, harm = _execute(state, state.late, on)
        label = f"late arrives {_line(state.late.events)}: {asked.answer} {asked.head}"
        yield label, state._replace(store=store, late=None, had=had), harm
    for place, one in enumerate(state.gateways):
        if not one.dead:
            for label, gateway, changed, harm in _gateway(state, one, on, bounds):
                gateways = (*state.gateways[:place], gateway, *state.gateways[place + 1 :])
                yield f"{one.name} {label}", changed._replace(gateways=gateways), harm
            yield from _read(state, one, on)


def attach(seq: int, epoch: int, writers: tuple[Writer, ...], committed: int, on: Protections) -> str:
    """What a gateway answers to a cursor: "served", "later" (UNAVAILABLE) or "lost" (DATA_LOSS). Epoch 0: none."""
    newest = writers[-1].epoch
    if epoch > newest and on.newer_cursor:
        return "later"
    if epoch and any(epoch < writer.epoch and seq > writer.head for writer in writers):
        return "lost"
    if 0 < epoch < newest and on.known_epochs and epoch not in {writer.epoch for writer in writers}:
        return "lost"
    if seq > committed:
        return "later" if on.wait_when_behind else "lost"
    return "served"


def _store(state: State) -> Iterator[Step]:
    """Time passes, and the store forgets."""
    store, left = state.store, state.left
    if store is None:
        return
    if not store.lease_over:
        yield "the lease ends", state._replace(store=store._replace(lease_over=True)), ""
    if left.losses:
        after = state._replace(left=left._replace(losses=left.losses - 1))
        yield "the store forgets everything", after._replace(store=None), ""
        earlier = _before(store)
        while earlier is not None:
            label = f"the store goes back to epoch {earlier.writers[-1].epoch}, event {len(earlier.stream)}"
            yield label, after._replace(store=earlier), ""
            earlier = _before(earlier)


def _before(store: Store) -> Store | None:
    """The store as it was before its last write."""
    if store.writers[-1].head < len(store.stream):
        return store._replace(stream=store.stream[:-1])
    return Store(store.stream, store.writers[:-1], True) if len(store.writers) > 1 else None


def _gateway(state: State, one: Gateway, on: Protections, bounds: Bounds) -> Iterator[Move]:
    """What a gateway can do."""
    left, asked = state.left, one.asked
    late = asked if asked is not None and not asked.answer else state.late
    if left.crashes:
        after = state._replace(late=late, left=left._replace(crashes=left.crashes - 1))
        yield "dies", Gateway(one.name, dead=True), after, ""
    if not one.writers:
        yield from _take_over(state, one, on)
        return
    yield from _write(state, one, on, bounds)
    if asked is None:
        return
    if left.timeouts:
        after = state._replace(late=late, left=left._replace(timeouts=left.timeouts - 1))
        yield "waits no longer for an answer", one._replace(asked=None), after, ""
    if not asked.answer:
        store, answered, had, harm = _execute(state, asked, on)
        after = state._replace(store=store, had=had)
        yield f"is answered: {answered.answer} {answered.head}", one._replace(asked=answered), after, harm
    elif asked.answer == "fenced":
        yield "writes the run no more", Gateway(one.name), state, ""
    elif asked.answer == "missing":
        yield "has to bring the run back", one._replace(asked=None, known=-1), state, ""
    else:
        head = min(asked.head, len(one.log))
        after_it = one._replace(asked=None, known=head, committed=max(one.committed, head))
        yield f"publishes up to event {after_it.committed}", after_it, state, ""


def _take_over(state: State, one: Gateway, on: Protections) -> Iterator[Move]:
    """One step in the store, if the lease is over. Reading the events takes longer, but nobody else adds to them."""
    store, left = state.store, state.left
    if store is None or not store.lease_over or not left.take_overs:
        return
    head = len(store.stream)
    epoch = (left.newest if on.unique_epochs else store.writers[-1].epoch) + 1
    writers = (*store.writers, Writer(epoch, one.name, head))
    left = left._replace(take_overs=left.take_overs - 1, newest=max(epoch, left.newest))
    label = f"takes the run over in epoch {epoch} after event {head}"
    gateway = Gateway(one.name, writers, store.stream, committed=head, known=head)
    yield label, gateway, state._replace(store=Store(store.stream, writers, False), left=left), ""


def _write(state: State, one: Gateway, on: Protections, bounds: Bounds) -> Iterator[Move]:
    """The engine tells events; what the store does not have is sent, all of it in one append, one append at a time."""
    epoch, left = one.writers[-1].epoch, state.left
    if one.asked is None and one.known < 0:
        asked = Asked(one.name, epoch, 1, (), again=one.writers)
        yield "sends the run again", one._replace(asked=asked), state, ""
    for new in range(min(bounds.batch, bounds.events - len(one.log)) + 1):
        log = one.log + tuple(f"{len(one.log) + 1 + more}{one.name}{epoch}" for more in range(new))
        if one.asked is None and 0 <= one.known < len(log):
            asked = Asked(one.name, epoch, one.known + 1, log[one.known :])
            shown = one.committed if on.publish_after_write else len(log)
            yield f"sends {_line(asked.events)}", one._replace(log=log, asked=asked, committed=shown), state, ""
        if left.unkept and len(log) > one.committed and new < 2:
            after = state._replace(left=left._replace(unkept=left.unkept - 1))
            label = f"cannot reach the store, and publishes up to {log[-1]} all the same"
            yield label, one._replace(log=log, committed=len(log)), after, ""


def _execute(state: State, asked: Asked, on: Protections) -> tuple[Store | None, Asked, Had, str]:
    """What the store does with a request, in one step: the store after it, the answer, what it ever had, the harm."""
    store, had = state.store, state.had
    held = store.writers[-1] if store is not None else Writer(0, "", 0)
    if on.fence and (held.epoch > asked.epoch or (held.epoch == asked.epoch and held.gateway != asked.gateway)):
        return store, asked._replace(answer="fenced", head=len(store.stream) if store else 0), had, ""
    if store is None or (on.fence and held.epoch < asked.epoch):
        # The store has forgotten the run, or that it was taken over: the newest writer brings it back.
        if asked.again:
            return Store((), asked.again, False), asked._replace(answer="head"), had, ""
        return store, asked._replace(answer="missing"), had, ""
    if asked.again or (on.head_check and asked.first != len(store.stream) + 1):
        return store, asked._replace(answer="head", head=len(store.stream)), had, ""
    stream = store.stream + asked.events
    mine, last = (asked.epoch, asked.gateway), {(epoch, name): number for epoch, name, number in had}
    two = any(epoch == asked.epoch and name != asked.gateway for epoch, name in last)
    harm = f"two gateways wrote in epoch {asked.epoch}" if two else ""
    last[mine] = max(last.get(mine, 0), asked.first - 1 + len(asked.events))
    had = tuple((*who, number) for who, number in sorted(last.items()))
    return Store(stream, store.writers, False), asked._replace(answer="ok", head=len(stream)), had, harm


def _read(state: State, one: Gateway, on: Protections) -> Iterator[Step]:
    """The reader attaches after its cursor and reads one event. A gateway that does not write asks the store."""
    reader, store = state.reader, state.store
    if reader.refused or (not one.writers and store is None):
        return
    log, shown, writers = one.log, one.committed, one.writers
    if not writers and store is not None:
        log, shown, writers = store.stream, len(store.stream), store.writers
    seen = reader.seen
    outcome = attach(len(seen), reader.epoch if on.cursor_epoch else 0, writers, shown, on)
    if reader.copy == one.name and not one.writers:
        outcome = "served" if shown > len(seen) else "later"
    if outcome == "lost":
        whole = store is not None and seen == store.stream[: len(seen)] == log[: len(seen)]
        unjust = whole and reader.epoch in {writer.epoch for writer in writers}
        harm = "a reader is refused although nothing that it saw is lost" if unjust else ""
        yield f"the reader is refused at {one.name}", state._replace(reader=reader._replace(refused=True)), harm
    elif outcome == "served":
        harm = f"a reader that has seen {_line(seen)} goes on in {_line(log)}" if seen != log[: len(seen)] else ""
        if shown > len(seen):
            copy = "" if on.copies_checked or one.writers else one.name
            after = state._replace(reader=Reader(log[: len(seen) + 1], writers[-1].epoch, copy=copy))
            yield f"the reader reads {log[len(seen)]} at {one.name}", after, harm
        elif harm:
            yield f"the reader attaches at {one.name}", state, harm


def harm_in(state: State, bounds: Bounds) -> str:
    """What must hold in every state: returns what does not, or ""."""
    seen, store, left = state.reader.seen, state.store, state.left
    all_kept = left.unkept == bounds.unkept
    for event in seen if all_kept else ():
        if not any(event[1:] == f"{name}{epoch}" and int(event[0]) <= last for epoch, name, last in state.had):
            return f"a reader has seen {event}, which the store never had"
    if all_kept and left.losses == bounds.losses and store is not None:
        shown = [("a reader has seen", seen)]
        shown += [(f"{one.name} shows", one.log[: one.committed]) for one in state.gateways if one.writers]
        for who, text in shown:
            if text != store.stream[: len(text)]:
                return f"{who} {_line(text)}, the store has {_line(store.stream)} and has forgotten nothing"
    first = state.gateways[0]
    if left.take_overs == bounds.take_overs and first.writers and seen != first.log[: len(seen)]:
        return f"a reader has seen {_line(seen)}, the run's one writer has {_line(first.log)}"
    return ""


class Found(NamedTuple):
    """What a search found: how many states, the harm, and the shortest way to it."""

    states: int
    harm: str = ""
    way: tuple[str, ...] = ()


def search(on: Protections, bounds: Bounds) -> Found:
    """Tries everything, breadth first, until there is a harm, or nothing new."""
    first = begin(bounds)
    came: dict[State, tuple[State, str]] = {}
    level, known = [first], {first}
    while level:
        following = []
        for state in level:
            for label, after, harm in steps(state, on, bounds):
                if harm := harm or (harm_in(after, bounds) if after not in known else ""):
                    way = [label]
                    while state in came:
                        state, label = came[state]
                        way.append(label)
                    return Found(len(known), harm, tuple(reversed(way)))
                if after not in known:
                    known.add(after)
                    came[after] = (state, label)
                    following.append(after)
        level = following
    return Found(len(known))


def without(protection: str) -> Found:
    """Searches the design without one of its protections."""
    return search(replace(Protections(), **{protection: False}), WORLDS[MISSED[protection]])


def _line(text: Text) -> str:
    return " ".join(text) or "nothing"


def main() -> int:
    """Searches the design, then without each of its protections; returns 1 if anything is not as it should be."""
    say = sys.stdout.write
    say("What holds, whatever happens:\n" + "".join(f"- {one}\n" for one in HOLDS) + "\n")
    wrong = False
    for name, bounds in WORLDS.items():
        began = time.monotonic()
        found = search(Protections(), bounds)
        wrong |= bool(found.harm)
        say(f"{name}: {found.states} states, {time.monotonic() - began:.1f} s, {found.harm or 'all of it holds'}\n")
        say("".join(f"    {step}\n" for step in found.way))
    for protection in MISSED:
        found = without(protection)
        wrong |= not found.harm
        say(f"\nWithout {protection}: {found.harm or 'NOTHING IS FOUND'}\n")
        say("".join(f"    {step}\n" for step in found.way))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
