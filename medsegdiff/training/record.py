"""A run's folder: rows, events, pictures and checkpoints, written while it trains and read when it continues."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Optional

import yaml

from medsegdiff.base import screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, make_folder
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Dataset
from medsegdiff.training.continuing import compare
from medsegdiff.training.interruption import Interrupted
from medsegdiff.training.journal import Journal
from medsegdiff.training.logbook import Logbook
from medsegdiff.training.picture import ProgressPicture
from medsegdiff.training.provenance import provenance
from medsegdiff.training.run_folder import CONFIG, EVENTS, LOG, PROGRESS, RUN, SAMPLES
from medsegdiff.training.trainer import Trainer
from medsegdiff.training.validation import Outcome, Progress, write_picture


class Record:
    """The folder of a run: continues from its newest whole checkpoint, or begins."""

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        held_out: Optional[Dataset],
        ledger: Ledger,
        about: dict[str, Any],
        trainer: Trainer,
    ) -> None:
        """Restore `trainer` from the newest checkpoint, if there is one.

        `about` is what is saved of the dataset with the run and its checkpoints, ready for JSON.

        Raises:
            InputError: the checkpoints cannot be used, or are those of another configuration or of other images.
        """
        self.config, self.dataset, self.ledger, self.about, self.trainer = config, dataset, ledger, about, trainer
        self.out = out = ledger.folder
        training = config.training
        self.logbook = Logbook(out, training.tensorboard, held_out is not None, training.dice_weight > 0)
        self.picture = ProgressPicture(self.logbook)
        self.journal = Journal(out)
        self.progress = Progress()
        self.saved = -1
        """The step of the newest checkpoint."""
        checkpoints.tidy(out)
        checkpoints.tidy(out / checkpoints.BEST)
        for folder in (out, out / checkpoints.BEST, out / SAMPLES):
            clear_leftovers(folder)
        ledger.claim([LOG, EVENTS, PROGRESS], grows=True)
        resumed = self._resume()
        self._check_room()
        origin = provenance(dataset, held_out, training.precision)
        with ledger.together(RUN) as stage:
            (stage / CONFIG).write_text(yaml.safe_dump(config.flat(), sort_keys=False))
            (stage / RUN).write_text(json.dumps({**origin, "data": about}, indent=1))
        self.journal.note("resume" if resumed else "start", trainer.step, **origin)

    def _resume(self) -> bool:
        """Continue from the newest whole checkpoint, if there is one."""
        found, complaints = checkpoints.load_newest(self.out)
        for complaint in complaints:
            screen.note(f"skipped: {complaint}")
        if found is None:
            if complaints:
                raise InputError(
                    f"{self.out}: none of its checkpoints can be used; give another `out_dir`, or move them away"
                )
            self.logbook.resume(0, {})
            return False
        compare(found, self.config, self.dataset.fingerprint)
        self.trainer.restore(found)
        self.progress = Progress(**found.training.get("validation", {}))
        self.logbook.resume(found.training.get("row", found.step), found.training["log"], self.progress.last)
        best = self.out / checkpoints.BEST / f"step-{found.step:06d}"
        if self.progress.best_step == found.step and not best.exists():  # it was killed between the two
            self.keep_best(found)
        self.saved = found.step
        screen.note(f"continuing from {self.out}/step-{found.step:06d}")
        return True

    def _check_room(self) -> None:
        """Refuse a disk that cannot hold one checkpoint, which may be hours away; say so if it cannot hold them all."""
        training, trainer = self.config.training, self.trainer
        saves = (training.steps - trainer.step + training.save_interval - 1) // training.save_interval
        if training.keep:  # and one more, before the oldest goes
            saves = min(saves, max(1, training.keep + 1 - len(checkpoints.list_checkpoints(self.out))))
        groups = [trainer.optimiser.state(), *[trainer.state] * (1 + len(trainer.averages))]
        each = 4 * sum(math.prod(value.shape) for group in groups for value in group.values())
        total, _, free = shutil.disk_usage(self.out)
        if saves <= 0 or saves * each < free or not total:  # some file systems do not tell
            return
        told = f"{self.out}: each checkpoint takes {each / 2**20:,.0f} MiB there, and {free / 2**20:,.0f} MiB are free"
        if free < each:
            raise InputError(f"{told}; free some, or give another `out_dir`")
        screen.note(f"note: {told}, of the {saves * each / 2**20:,.0f} MiB that this training will want; see `keep`")

    @contextmanager
    def journalled(self) -> Iterator[None]:
        """Write down how the block ended."""
        reason = "finished"
        try:
            yield
            reason = "patience" if self.impatient else "finished"
        except Interrupted as stop:
            reason = str(stop)
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            with suppress(InputError, OSError):  # such as the full disk that is the reason
                self.journal.note("stop", self.trainer.step, reason=reason)
            with suppress(InputError, OSError):
                self.logbook.close()

    @property
    def impatient(self) -> bool:
        """Whether validation has not improved for too long."""
        return 0 < self.config.validation.patience <= self.progress.stale

    def row(self) -> None:
        """Write the log's next row."""
        self.logbook.write(self.trainer.step, self.trainer.step * self.config.training.batch_size)

    def validation(self, outcome: Outcome) -> bool:
        """Note a validation; whether it is the best so far."""
        step, improved = self.trainer.step, self.progress.take(self.trainer.step, outcome.dice)
        write_picture(self.ledger, step, outcome.picture)
        self.logbook.validate(step, outcome.dice, outcome.picture)
        self.journal.note("validation", step, dice=outcome.dice, best=self.progress.best, stale=self.progress.stale)
        return improved

    def save(self, replace: bool) -> Checkpoint:
        """Write a checkpoint; if it may `replace` those before, only `keep` of them stay."""
        found = self.trainer.checkpoint(
            self.dataset.fingerprint,
            log=self.logbook.state(),
            row=self.logbook.row,
            validation=dataclasses.asdict(self.progress),
            data=self.about,
        )
        self.logbook.flush()  # a checkpoint must not outlive the rows before it
        path = checkpoints.save(self.out, found, self.config.training.keep if replace else 0)
        self.saved = found.step
        self.journal.note("checkpoint", found.step, path=path.name)
        return found

    def keep_best(self, found: Checkpoint) -> None:
        """Write this checkpoint as the best one, replacing the one before."""
        folder = make_folder(self.out / checkpoints.BEST)
        path = checkpoints.save(folder, found)
        for other in checkpoints.list_checkpoints(folder):
            if other != path:
                checkpoints.remove(other)
        self.journal.note("best", found.step, dice=self.progress.best)
