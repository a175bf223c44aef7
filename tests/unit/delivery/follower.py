"""A reader that holds every message against the account of the run."""

from tokenwire.delivery.view import MAX_TEXT_BYTES, View
from tokenwire.domain.cursor import START, Channel, Cursor
from tokenwire.domain.events import Delta, End, Envelope
from tokenwire.domain.request import Delivery
from unit.delivery.story import Story, sizes, whole_pieces


class Follower:
    """Follows a run through a view, and fails at the first message that is not right."""

    def __init__(self, story: Story, after: Cursor = START, delivery: Delivery | None = None) -> None:
        self.view = View(story.log, after, delivery, token_ids=True)
        self.story = story
        self.got: list[Envelope] = []
        self.sent = story.consumed(after)
        self.begun = dict(self.sent)
        self._sizes = sizes(delivery or Delivery())
        # Whoever has read `end` already gets it again.
        past = story.head - 1 if story.log.end else story.head
        self._markers = {seq for seq in story.markers if seq <= min(after.seq, past)}
        self._times: dict[Channel, int] = {}

    def take(self) -> "Follower":
        """Takes what can go out now."""
        for envelope in self.view.take():
            match envelope.event:
                case Delta() as delta:
                    self._delta(delta, envelope.elapsed_ms)
                case marker:
                    self._marker(ended=isinstance(marker, End))
            assert envelope.cursor == self._cursor()
            self.got.append(envelope)
        assert self.view.cursor == (self.got[-1].cursor if self.got else self.view.cursor)
        if not self.view.ended:
            self._nothing_whole_is_held()
        return self

    def to_the_end(self) -> "Follower":
        """Reads a run that has ended, and checks that nothing is left."""
        self.take()
        assert self.view.ended
        assert isinstance(self.got[-1].event, End)
        assert self.sent == {channel: len(text.encode()) for channel, text in self.story.texts.items()}
        assert self._markers == self.story.markers
        assert self.got[-1].cursor == Cursor(self.story.head)
        return self

    def _delta(self, delta: Delta, at_ms: int) -> None:
        channel, data = delta.channel, self.story.texts[delta.channel].encode()
        sent = self.sent.setdefault(channel, 0)
        self.begun.setdefault(channel, 0)
        stop = sent + len(delta.text.encode())
        assert delta.byte_offset == sent < stop <= sent + MAX_TEXT_BYTES
        assert data[sent:stop] == delta.text.encode()
        self._whole_pieces(channel, stop)
        facts = [fact for fact in self.story.facts if fact.channel == channel]
        touched = [fact for fact in facts if fact.start < stop and fact.end > sent]
        completed = [fact for fact in touched if fact.end <= stop]
        assert delta.token_offset == sum(len(fact.ids) for fact in facts if fact.end <= sent)
        assert delta.token_ids == tuple(one for fact in completed for one in fact.ids)
        assert delta.token_count == len(delta.token_ids)
        assert delta.logprobs == tuple(one for fact in completed for one in fact.logprobs)
        assert at_ms == touched[-1].at_ms >= self._times.get(channel, 0)
        # Text may be overtaken by events without text, but never overtakes one.
        assert all(seq in self._markers for seq in self.story.markers if seq < touched[-1].seq)
        self.sent[channel], self._times[channel] = stop, at_ms

    def _whole_pieces(self, channel: Channel, stop: int) -> None:
        text, size = self.story.texts[channel].encode(), self._sizes.get(channel.kind)
        if size is not None and not (self.story.log.end and stop == len(text)):
            begun = self.begun[channel]
            assert stop - begun in whole_pieces(text[begun:].decode(), size)

    def _nothing_whole_is_held(self) -> None:
        for channel, text in self.story.texts.items():
            data, begun = text.encode(), self.begun.get(channel, 0)
            rest, size = data[begun:], self._sizes.get(channel.kind)
            due = len(rest) if size is None else max(whole_pieces(rest.decode(), size), default=0)
            assert self.sent.get(channel, 0) == begun + due

    def _marker(self, *, ended: bool) -> None:
        seq = min(self.story.markers - self._markers)
        assert ended == (self.story.log.end is not None and seq == self.story.head)
        if ended:
            assert all(self.sent.get(channel, 0) == len(text.encode()) for channel, text in self.story.texts.items())
        self._markers.add(seq)

    def _cursor(self) -> Cursor:
        """Returns the cursor of what was consumed, straight from its definition."""
        missing = self.story.markers - self._markers
        missing |= {fact.seq for fact in self.story.facts if fact.end > self.sent.get(fact.channel, 0)}
        seq = min(missing, default=self.story.head + 1) - 1
        upto = self.story.consumed(Cursor(seq))
        return Cursor(seq, tuple(sorted((channel, at) for channel, at in self.sent.items() if at > upto[channel])))
