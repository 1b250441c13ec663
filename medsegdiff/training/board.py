"""The same numbers as `log.csv`, and pictures, for TensorBoard."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

from medsegdiff.base.files import fsync, writing
from medsegdiff.training.run_folder import TENSORBOARD

_TIME = re.compile(r"events\.out\.tfevents\.(\d+\.\d+)\.")


class Board:
    """TensorBoard's event file, opened when there is something to write.

    tensorboardX encodes the events. Its own `SummaryWriter` hands them to a thread, which dies of a full disk
    without a word and lets its queue fill up until training hangs; here they are written at once.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / TENSORBOARD
        self.first = 0
        """What an earlier start wrote of the steps from this one on is hidden, as they are done again; 0: nothing."""
        self._path = self.folder
        self._records: Any = None

    def write(self, step: int, scalars: Mapping[str, float], picture: Optional[np.ndarray] = None) -> None:
        """Write what belongs to `step`; `picture` is uint8 (H, W, 3).

        Raises:
            InputError: the disk is full or read-only.
        """
        from tensorboardX import summary

        summaries = [summary.scalar(name, value) for name, value in scalars.items()]
        if picture is not None:
            summaries.append(summary.image("validation", picture, dataformats="HWC"))
        with writing(self.folder):
            if self._records is None:
                self._open()
            for each in summaries:
                self._append(step=step, summary=each)
            self._records.flush()

    def _open(self) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.record_writer import RecordWriter

        self.folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names; a clock may have been set back since the last one.
        earlier = [_TIME.match(path.name) for path in self.folder.iterdir()]
        now = max([time.time(), *(float(found[1]) + 0.001 for found in earlier if found)])
        self._path = self.folder / f"events.out.tfevents.{now:.6f}.{platform.node()}"
        self._records = RecordWriter(str(self._path))
        self._append(file_version="brain.Event:2")
        if self.first:
            self._append(step=self.first, session_log=SessionLog(status=SessionLog.START))

    def _append(self, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def flush(self) -> None:
        """Bring what is written to the disk.

        Raises:
            InputError: the disk is full.
        """
        if self._records is not None:
            with writing(self.folder):
                fsync(self._path)
                fsync(self.folder)

    def close(self) -> None:
        """Close the file.

        Raises:
            InputError: the disk is full.
        """
        if self._records is not None:
            with writing(self.folder):
                self._records.close()
