"""The one place where a server computes: jobs, one after another, in the thread that owns the network."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from medsegdiff.api import Segmenter
from medsegdiff.base.bounds import check_bounds
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import remove
from medsegdiff.config.sampling import SAMPLERS
from medsegdiff.data.cases import Case
from medsegdiff.diffusion.samplers import State
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.volume_segmentation import VolumeSegmentation
from medsegdiff.io.volumes import is_volume

Found = Union[Segmentation, VolumeSegmentation]


class Cancelled(Exception):
    """Nobody waits for the job any more."""


@dataclass
class Job:
    """An image to segment."""

    case: Case
    folder: Path
    """Where its files are, and more may be; they stay until what is found has been used, or the job is cancelled."""
    slices: Optional[Sequence[int]] = None
    """Of a volume those to segment; None: all."""
    members: int = 5
    steps: int = 0
    """Network evaluations a mask; 0: as many as the network needs by default."""
    sampler: str = "ddpm"
    seed: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)


class Step(NamedTuple):
    """A batch of masks after a network evaluation."""

    state: State
    number: int
    """Of the first one's slice, 0 of a picture."""
    leads: bool
    """Whether that is the first member."""


@dataclass(frozen=True)
class Limits:
    """What a job may ask for."""

    members: int = 50
    steps: int = 250

    def check(self, job: Job) -> None:
        """Refuse what is too much, or makes no sense.

        Raises:
            InputError: it does.
        """
        for name in ("members", "steps", "seed"):
            if type(getattr(job, name)) is not int:  # a program may send anything
                raise InputError(f"{name} {getattr(job, name)!r}: must be a whole number")
        if job.slices is not None and not (isinstance(job.slices, list) and all(type(n) is int for n in job.slices)):
            raise InputError(f"slices {job.slices!r}: must be a list of whole numbers")
        check_bounds("members", job.members, 1, self.members)
        check_bounds("steps", job.steps, 0, self.steps)
        if job.sampler not in SAMPLERS:
            raise InputError(f"sampler {job.sampler}: must be one of {', '.join(SAMPLERS)}")


class Worker:
    """Takes jobs from any thread; `run` works on them in the thread that calls it."""

    def __init__(self, segmenter: Segmenter, limits: Optional[Limits] = None) -> None:
        self.segmenter, self.limits = segmenter, limits or Limits()
        self.warm = False
        """Whether the network has computed here."""
        self._jobs: queue.Queue[Any] = queue.Queue()
        self._closed = False

    def run(self) -> None:
        """Work until `close`."""
        while not self._closed:
            with contextlib.suppress(queue.Empty):
                job, put = self._jobs.get(timeout=0.2)  # so that a signal is heard
                found = self._outcome(job, put)
                if job.cancelled.is_set():  # what came into the folder since it was given up
                    remove(job.folder)
                put(found)

    def close(self) -> None:
        """Let `run` return."""
        self._closed = True

    def _outcome(self, job: Job, put: Any) -> Any:
        """The result, or the exception instead."""

        def on_step(ids: Sequence[str], members: Sequence[int], state: State) -> None:
            self.warm = True
            if job.cancelled.is_set():
                raise Cancelled
            _, _, number = ids[0].rpartition(":")
            put(Step(state, int(number) if volume else 0, members[0] == 0))

        case, volume = job.case, is_volume(job.case.image)
        try:
            if job.cancelled.is_set():
                raise Cancelled
            asked = {"members": job.members, "steps": job.steps or None, "sampler": job.sampler, "seed": job.seed}
            if not volume:
                return self.segmenter.segment(case.image, id=case.id, on_step=on_step, **asked)
            kept = {"slices": job.slices, "cache_dir": job.folder / "cache"}
            return self.segmenter.segment_volume(case.channels, id=case.id, on_step=on_step, **kept, **asked)
        except (InputError, Cancelled) as error:
            return error
        except Exception as error:  # one job's failure must not end the server
            return RuntimeError(f"unexpected {type(error).__name__}")

    async def steps(self, job: Job) -> AsyncIterator[Any]:
        """Have `job` done: a `Step` each time, then what was found.

        Whoever stops listening cancels the job.

        Raises:
            InputError: the job is refused, or the network predicts what is not finite.
            RuntimeError: it failed.
        """
        self.limits.check(job)
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def put(event: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(events.put_nowait, event)

        self._jobs.put((job, put))
        try:
            while True:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if not isinstance(event, Step):
                    return
        finally:
            job.cancelled.set()
