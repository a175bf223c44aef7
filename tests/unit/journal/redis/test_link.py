"""When the store counts as down."""

from dataclasses import dataclass, field

from tokenwire.domain.context import Clock
from tokenwire.journal.redis.link import Link
from tokenwire.journal.redis.store import StoreError, StoreFullError


@dataclass
class Story:
    """A link whose clock a test turns."""

    now: float = 100.0
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = Clock(monotonic=lambda: self.now, wall=lambda: self.now)
        self.link = Link(clock, 1.0, lambda: self.told.append("down"), self._back)

    def _back(self, was_down: bool) -> None:
        self.told.append("back after it was down" if was_down else "back")


def test_a_process_that_was_stopped_does_not_take_the_store_for_down_on_waking() -> None:
    story = Story()
    begun, story.now = story.now, 160.0
    # All that was under way took too long, on both ways.
    story.link.writes.failed(begun, StoreError())
    story.link.writes.failed(begun, StoreError())
    story.link.reads.failed(begun, StoreError())
    assert not story.link.down
    story.link.writes.worked()
    story.link.reads.worked()
    assert story.told == ["back", "back"]


def test_a_store_that_fails_for_long_enough_and_again_is_down() -> None:
    story = Story()
    assert story.link.writes.failed(100.0, StoreError()) == 0.0, "at once again"
    story.now = 100.5
    assert story.link.writes.failed(100.1, StoreError()) > 0
    assert not story.link.down
    story.now = 101.2
    story.link.writes.failed(100.6, StoreError())
    story.link.writes.failed(101.2, StoreError())
    assert (story.link.down, story.told) == (True, ["down"])
    story.link.writes.worked()
    assert (story.link.down, story.told) == (False, ["down", "back after it was down"])


def test_what_can_be_read_but_not_written_is_down() -> None:
    story = Story()
    for _ in range(3):
        story.link.writes.failed(story.now, StoreFullError())
        story.now += 1
        story.link.reads.worked()
    assert story.link.down
    assert story.link.full
    story.link.writes.worked()
    assert not story.link.down
    assert not story.link.full
