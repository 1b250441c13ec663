"""`progress.png` in a run's folder: the curves of the training so far."""

from __future__ import annotations

import time

from medsegdiff.base import screen
from medsegdiff.plots.curves import draw_progress
from medsegdiff.training.logbook import Logbook
from medsegdiff.training.run_folder import PROGRESS

_SHARE = 0.01  # of the time, at most, goes into drawing


class ProgressPicture:
    """Draws a log; a failure here does not stop a training."""

    def __init__(self, logbook: Logbook) -> None:
        self.logbook, self.path = logbook, logbook.path.with_name(PROGRESS)
        self._due = 0.0
        self._complained = False

    def draw(self, at_once: bool = False) -> None:
        """Draw, unless that took too long for the time since; `at_once`: in any case."""
        begun = time.monotonic()
        if begun < self._due and not at_once:
            return
        try:
            if loss := self.logbook.curve("loss"):
                draw_progress(loss, self.logbook.curve("val_dice"), self.path)
        except Exception as error:  # a broken font, a full disk: the log has it all
            if not self._complained:
                screen.note(f"note: {self.path}: not drawn ({' '.join(str(error).split())})")
            self._complained = True
        self._due = time.monotonic() + (time.monotonic() - begun) / _SHARE
