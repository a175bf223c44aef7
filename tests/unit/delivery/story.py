"""Random runs, written by a real writer into a real log, with an account of what must be in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tokenwire.dispatch.writer import Writer
from tokenwire.domain.cursor import Channel, ChannelKind, Cursor
from tokenwire.domain.events import Continuation, Dispatched, End, FinishReason, Start, Timings, TokenLogprob
from tokenwire.domain.generation import CallHead, ChoiceDone, Piece, PromptRead
from tokenwire.domain.request import Buffering, BufferingMode, Delivery
from tokenwire.journal.log import RunLog

# Code points of one to four bytes, and clusters of several: accents, conjuncts, families, flags.
WORDS = (
    "a",
    "the ",
    "\n",
    "ß",
    "e\u0301",
    "शि",
    "ही",
    "שלום",
    "水が流れる",
    "\U0001d518",
    "👍🏽",
    "👩‍👩‍👧",
    "🇩🇪",
    "\u200d",
    "\x00",
    "\ufffd",
)

Item = Piece | CallHead | PromptRead | Dispatched


@dataclass(frozen=True, slots=True)
class Fact:
    """One journal event with text, as it must be."""

    seq: int
    channel: Channel
    start: int
    end: int
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What an engine will say: batches, each with the milliseconds that pass before it."""

    choices: int
    batches: list[tuple[int, list[Item]]]
    fate: FinishReason = FinishReason.STOP


@dataclass(slots=True)
class Story:
    """A run that is being written, and the account of it."""

    plot: Plot
    log: RunLog = field(default_factory=RunLog)
    facts: list[Fact] = field(default_factory=list)
    markers: set[int] = field(default_factory=set)
    texts: dict[Channel, str] = field(default_factory=dict)
    now: int = 0
    _held: dict[Channel, tuple[list[int], list[TokenLogprob]]] = field(default_factory=dict)
    _writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self._writer = Writer(self.log, lambda: self.now, self.plot.choices, None)
        self.log.append(Start(run_id="r", request_id="", model="m", labels={}, retention_seconds=1), 0)
        self.markers.add(1)

    @property
    def head(self) -> int:
        """How many events there are."""
        return len(self.facts) + len(self.markers)

    def tell(self, number: int) -> None:
        """Writes one batch."""
        passed, batch = self.plot.batches[number]
        self.now += passed
        for item in batch:
            if isinstance(item, Piece):
                self._note(item)
                self._writer.write([item], 1)
                continue
            before = self.log.head
            if isinstance(item, Dispatched):
                self.log.append(item, self.now)
            else:
                self._writer.write([item], 1)
            # Whether it is worth an event is the writer's business.
            self.markers |= set(range(before + 1, self.log.head + 1))

    def finish(self) -> End:
        """Writes the end."""
        done = [ChoiceDone(choice=choice, finish_reason=self.plot.fate) for choice in range(self.plot.choices)]
        self._writer.write(done, 1)
        end = End(
            choices=tuple(self._writer.ends.values()),
            usage=self._writer.usage(),
            timings=Timings(),
            channels=self.log.channel_ends(),
        )
        self.markers.add(self.head + 1)
        self.log.append(end, self.now)
        return end

    def whole(self) -> "Story":
        """Writes everything."""
        for number in range(len(self.plot.batches)):
            self.tell(number)
        self.finish()
        return self

    def consumed(self, cursor: Cursor) -> dict[Channel, int]:
        """Returns how far a reader at a cursor is in each channel."""
        offsets = dict.fromkeys(self.texts, 0) | dict(cursor.ahead)
        for fact in self.facts:
            if fact.seq <= cursor.seq:
                offsets[fact.channel] = max(offsets[fact.channel], fact.end)
        return offsets

    def _note(self, item: Piece) -> None:
        ids, logprobs = self._held.setdefault(item.channel, ([], []))
        ids.extend(item.token_ids)
        logprobs.extend(item.logprobs)
        if not item.text:
            return
        del self._held[item.channel]
        start = len(self.texts.get(item.channel, "").encode())
        end = start + len(item.text.encode())
        self.facts.append(Fact(self.head + 1, item.channel, start, end, tuple(ids), tuple(logprobs), self.now))
        self.texts[item.channel] = self.texts.get(item.channel, "") + item.text


def whole_pieces(text: str, size: int) -> list[int]:
    """Returns where the whole pieces of a text end, in bytes: as many code points as fit into `size`, at least one."""
    ends, start, offset = [], 0, 0
    for width in (len(character.encode()) for character in text):
        if offset > start and offset - start + width > size:
            ends.append(offset)
            start = offset
        offset += width
        if offset - start >= size:
            ends.append(offset)
            start = offset
    return ends


def _piece(channel: Channel, words: Sequence[str], ids: list[int], *, logprobs: bool) -> Piece:
    told = tuple(TokenLogprob(token_id=one, token="", logprob=-0.5) for one in ids) if logprobs else ()
    return Piece(channel=channel, text="".join(words), token_ids=tuple(ids), logprobs=told)


def _pieces(choices: int) -> st.SearchStrategy[Piece]:
    kinds = st.sampled_from([(ChannelKind.TEXT, 0), (ChannelKind.REASONING, 0), (ChannelKind.TOOL_CALL, 1)])
    return st.builds(
        lambda choice, kind, words, ids, logprobs: _piece(Channel(choice, *kind), words, ids, logprobs=logprobs),
        st.integers(0, choices - 1),
        kinds,
        st.lists(st.sampled_from(WORDS) | st.characters(exclude_categories=["Cs"]), max_size=5),
        st.lists(st.integers(0, 2**32 - 2), max_size=3),
        st.booleans(),
    )


_MARKERS: st.SearchStrategy[Item] = st.sampled_from(
    [
        CallHead(channel=Channel(0, ChannelKind.TOOL_CALL, 1), id="c", name="n"),
        PromptRead(prompt_tokens=3, cached_tokens=1),
        Dispatched(engine="e", attempt=1, continuation=Continuation.FIRST),
    ]
)


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    """Draws a run."""
    choices = draw(st.integers(1, 3))
    items = st.one_of(_pieces(choices), _pieces(choices), _pieces(choices), _MARKERS)
    batches = st.lists(st.tuples(st.integers(0, 50), st.lists(items, min_size=1, max_size=4)), max_size=10)
    return Plot(choices=choices, batches=draw(batches))


_BUFFERING = st.builds(
    lambda size: Buffering(mode=BufferingMode.SIZE, size=size) if size else Buffering(), st.integers(0, 40)
)


def deliveries() -> st.SearchStrategy[Delivery]:
    """Draws how a reader wants its stream: each kind of channel as it comes, or in pieces of 1 to 40 bytes."""
    kinds = st.dictionaries(st.sampled_from(ChannelKind), _BUFFERING)
    return st.builds(lambda buffering: Delivery(buffering=buffering), kinds)


def sizes(delivery: Delivery) -> dict[ChannelKind, int]:
    """Returns the size of the pieces of each kind that is cut."""
    chosen = delivery.buffering
    found = {}
    for kind in ChannelKind:
        default = Buffering() if kind is ChannelKind.TOOL_CALL else chosen.get(ChannelKind.TEXT, Buffering())
        buffering = chosen.get(kind, default)
        if buffering.mode is BufferingMode.SIZE and buffering.size:
            found[kind] = buffering.size
    return found
