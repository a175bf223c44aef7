"""One choice of a run that goes on, as an answer of its own at an engine."""

from collections.abc import Sequence

from tokenwire.dispatch.joint import Joint
from tokenwire.domain.cursor import Channel, ChannelKind
from tokenwire.domain.generation import CallHead, ChoiceDone, Generated, Job, Piece, PromptRead, Totals


class Strand:
    """Gives what an engine writes as its only choice the number that the choice has in its run.

    Args:
        choice: that number.
        job: what the engine is asked for.
        joint: watches the first text, if need be.
        answer_tokens: tokens of the answer that the engine counts as its prompt's; they are taken off.

    Attributes:
        ended: whether the choice has ended, by the engine's word or by a stop string across the joint.
        cut: whether it ended by that stop string, of which the engine does not know.
    """

    __slots__ = ("_answer_tokens", "_joint", "choice", "cut", "ended", "job")

    def __init__(self, choice: int, job: Job, joint: Joint | None = None, answer_tokens: int = 0) -> None:
        self.choice = choice
        self.job = job
        self.ended = False
        self.cut = False
        self._answer_tokens = answer_tokens
        self._joint = joint if joint is not None and joint.is_open else None

    def take(self, batch: Sequence[Generated]) -> list[Generated]:
        """Returns what one read of the engine is for the run."""
        told: list[Generated] = []
        for item in batch:
            if self.cut or (self.ended and isinstance(item, Piece | ChoiceDone | CallHead)):
                continue
            if self._joint is not None and self._watched(item):
                assert isinstance(item, Piece | ChoiceDone)
                told += self._joint.take(item)
                if not self._joint.is_open:
                    self._joint = None
            else:
                told.append(item)
            if told and isinstance(told[-1], ChoiceDone):
                self.ended = True
                self.cut = isinstance(item, Piece)
        for item in told:
            if isinstance(item, Piece | CallHead):
                item.channel = Channel(self.choice, item.channel.kind, item.channel.index)
            elif isinstance(item, ChoiceDone):
                item.choice = self.choice
            elif isinstance(item, PromptRead | Totals) and item.prompt_tokens is not None:
                item.prompt_tokens = max(0, item.prompt_tokens - self._answer_tokens)
        return told

    def _watched(self, item: Generated) -> bool:
        return isinstance(item, ChoiceDone) or (isinstance(item, Piece) and item.channel.kind is ChannelKind.TEXT)
