"""Ways to break the service on purpose. The simulation has to notice each of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tokenwire.delivery.view import View
from tokenwire.dispatch import continuation
from tokenwire.dispatch.answer_ids import AnswerIds, known_ids
from tokenwire.dispatch.breaker import Breaker
from tokenwire.dispatch.continuation import Planner
from tokenwire.dispatch.joint import Joint
from tokenwire.dispatch.place import Place
from tokenwire.dispatch.presence import Presence
from tokenwire.dispatch.run import Run
from tokenwire.dispatch.runs import Runs
from tokenwire.dispatch.tries import Tries
from tokenwire.dispatch.watchdog import Watchdog
from tokenwire.dispatch.writer import Writer
from tokenwire.domain.cursor import START, Cursor
from tokenwire.domain.events import ChannelEnd, Delta, End, Envelope
from tokenwire.journal.file.entries import Entries
from tokenwire.journal.file.segment import Segment
from tokenwire.journal.log import RunLog
from tokenwire.journal.redis.journal import RedisJournal
from tokenwire.journal.redis.opening import Opening
from tokenwire.journal.redis.takeover import Takeover
from tokenwire.journal.redis.writing import Writing

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One way.

    Args:
        kind: the schedules that are to notice it.
        patch: does it.
    """

    kind: str
    patch: Patch


def _messages(change: Callable[[Envelope], list[Envelope]]) -> Patch:
    """Changes each message of a view."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        take = View.take

        def changed(self: View) -> Iterator[Envelope]:
            for one in take(self):
                yield from change(one)

        monkeypatch.setattr(View, "take", changed)

    return patch


def _after(change: Callable[[Cursor], Cursor]) -> Patch:
    """Changes where views begin."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        start = View.__init__

        def init(self: View, log: RunLog, after: Cursor = START, *rest: Any, **more: Any) -> None:
            start(self, log, change(after), *rest, **more)

        monkeypatch.setattr(View, "__init__", init)

    return patch


def _instead(owner: object, name: str, function: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, function)


def _ends_twice(one: Envelope) -> list[Envelope]:
    return [one, one] if isinstance(one.event, End) else [one]


def _without_last_byte(one: Envelope) -> list[Envelope]:
    if not isinstance(one.event, Delta) or len(one.event.text) <= 8:
        return [one]
    return [one._replace(event=one.event._replace(text=one.event.text[:-1]))]


def _wrong_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = RunLog.channel_ends

    def wrong(self: RunLog) -> tuple[ChannelEnd, ...]:
        return tuple(replace(one, sha256="0") for one in ends(self))

    monkeypatch.setattr(RunLog, "channel_ends", wrong)


def _no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that come back do not stop the grace of the run."""
    monkeypatch.setattr("tokenwire.dispatch.presence._stop_timer", lambda run: None)


def _no_wait_for_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Presence, "alone", lambda self, run, at_least=0.0: self._orphan(run) if run.here else None)


def _known(change: Callable[[AnswerIds], AnswerIds]) -> Patch:
    """Changes the tokens with which an engine goes on."""

    async def changed(*args: Any) -> AnswerIds | None:
        found = await known_ids(*args)
        return found and change(found)

    return lambda monkeypatch: monkeypatch.setattr(continuation, "known_ids", changed)


def _limit_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planner, "_limit", lambda self, run: None)


def _text_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    by_text = Planner._by_text
    monkeypatch.setattr(Planner, "_by_text", lambda self, run, engine, text: by_text(self, run, engine, text[:-1]))


async def _nothing(*args: Any) -> None:
    pass


def _published_early(monkeypatch: pytest.MonkeyPatch) -> None:
    wake = RunLog.wake

    def early(self: RunLog) -> None:
        self.publish(self.head)
        wake(self)

    monkeypatch.setattr(RunLog, "wake", early)


def _without_last_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Entries.read
    monkeypatch.setattr(Entries, "read", lambda self, data: iter(list(read(self, data))[:-1]))


def _unclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Opening, "_claim", _nothing)
    monkeypatch.setattr(Opening, "_check_claim", _nothing)


def _begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is taken over is written from its beginning, behind what is there."""
    monkeypatch.setattr(Writer, "wrote_text", property(lambda self: False, lambda self, value: None))


def _unfenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.model_store._fence", lambda run, lease: None)


SABOTAGE: dict[str, Sabotage] = {
    "ends twice": Sabotage("clients", _messages(_ends_twice)),
    "loses the end of a long message": Sabotage("clients", _messages(_without_last_byte)),
    "resumes one event early": Sabotage("clients", _after(lambda one: Cursor(max(one.seq - 1, 0), (), one.epoch))),
    "resumes one event late": Sabotage("clients", _after(lambda one: one._replace(seq=one.seq + (one.seq > 3)))),
    "forgets what channels are ahead": Sabotage("clients", _after(lambda one: one._replace(ahead=()))),
    "tells cursors too far ahead": Sabotage("clients", _instead(View, "_cursor", lambda self: self._log.head_cursor)),
    "tells wrong digests": Sabotage("clients", _wrong_digests),
    "starts a run for every submit": Sabotage("clients", _instead(Runs, "_joinable", lambda self, *rest: None)),
    "ends runs that are read again": Sabotage("clients", _no_notice),
    "ends runs at once when nobody reads": Sabotage("clients", _no_wait_for_sent_away),
    "does not stop engines": Sabotage("clients", _instead(Run, "stop", lambda self, cause: None)),
    "never forgets a run": Sabotage("clients", _instead(Runs, "_forget", lambda self, run: None)),
    "misses stop strings across the joint": Sabotage("engines", _instead(Joint, "_hit", lambda self, full: None)),
    "loses what a stop string held back": Sabotage("engines", _known(lambda one: replace(one, pending=""))),
    "goes on without the last token": Sabotage("engines", _known(lambda one: replace(one, ids=one.ids[:-1]))),
    "goes on without the last character": Sabotage("engines", _text_twice),
    "forgets the limit of tokens": Sabotage("engines", _limit_anew),
    "never tries again": Sabotage("engines", _instead(Tries, "used_up", property(lambda self: True))),
    "does not notice silence": Sabotage("engines", _instead(Watchdog, "look", lambda self: None)),
    "shuts an engine out for ever": Sabotage(
        "engines", _instead(Breaker, "admits", property(lambda self: self._opened == 0))
    ),
    "keeps the place of a failed attempt": Sabotage("engines", _instead(Place, "release", lambda self: None)),
    "shows what is not written": Sabotage("restarts", _published_early),
    "loses the last entry at a restart": Sabotage("restarts", _without_last_entry),
    "forgets finished runs at a restart": Sabotage("restarts", _instead(Runs, "restore", lambda self, kept: None)),
    "does not go on after a restart": Sabotage("restarts", _instead(Runs, "take_over", lambda self, kept: None)),
    "begins anew after a restart": Sabotage("restarts", _begun_anew),
    "does not wait for the disk": Sabotage("restarts", _instead(Segment, "sync", lambda self: None)),
    "shows what the store does not have": Sabotage("replicas", _published_early),
    "lets a gateway write that has lost its lease": Sabotage("replicas", _unfenced),
    "takes no run over": Sabotage("replicas", _instead(Takeover, "take_in_turn", _nothing)),
    "takes a request that another gateway has": Sabotage("replicas", _unclaimed),
    "does not know of readers elsewhere": Sabotage("replicas", _instead(RedisJournal, "attended", _nothing)),
    "keeps cancels to itself": Sabotage("replicas", _instead(RedisJournal, "cancel", _nothing)),
    "writes nothing again after a loss": Sabotage("replicas", _instead(Writing, "missing", lambda self: None)),
}
