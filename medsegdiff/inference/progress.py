"""Progress of sampling on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medsegdiff.base.screen import Bar, counted
from medsegdiff.config.sampling import SamplingConfig


class ProgressBar(Bar):
    """A bar over network evaluations.

    Where ensembles adapt nobody knows how many there will be: images are expected to take what those that are done took
    on average, or the most they may while none is done.
    """

    def __init__(self, ids: Sequence[str], sampling: SamplingConfig) -> None:
        most, steps = sampling.member_range[1], sampling.steps or 0
        self._under_way: Counter[str] = Counter()  # evaluations by images that are not done
        self._done = self._taken_by_done = 0
        self._images = len(ids)
        what = f"{counted(len(ids), 'image')} x {counted(sampling.members, 'member')} x {counted(steps, 'step')}"
        super().__init__(most * steps * len(ids), what, "eval")

    def step(self, ids: Sequence[str]) -> None:
        """Count an evaluation of a batch whose rows belong to the images `ids`."""
        self._under_way.update(ids)
        self.update(len(ids))

    def settled(self, id: str) -> None:
        """Note that an image has all its members."""
        self._done += 1
        self._taken_by_done += self._under_way.pop(id)
        self.total = max(round(self._taken_by_done / self._done * self._images), self.n)
