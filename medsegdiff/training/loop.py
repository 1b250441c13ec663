"""The training loop: steps, and between them rows of the log, validations, checkpoints and stop requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np

from medsegdiff.base import ranks, screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import exclusive, make_folder
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Dataset
from medsegdiff.kernels import precision
from medsegdiff.runtime import exchange
from medsegdiff.runtime.toolchain import announce_kernels
from medsegdiff.training.interruption import Interrupted, held_back, stop_requests, undisturbed
from medsegdiff.training.processes import all_go_on, follow, own_batches
from medsegdiff.training.record import Record
from medsegdiff.training.run_folder import own
from medsegdiff.training.shares import check_shares
from medsegdiff.training.trainer import StepResult, Trainer
from medsegdiff.training.validation import Abandoned, Validator

MOST_SKIPS = 20
_RECENT = 50  # steps that the bar's mean loss is over, roughly


def train(
    config: RunConfig, dataset: Dataset, held_out: Optional[Dataset] = None, about: Optional[dict[str, Any]] = None
) -> Path:
    """Train to `config.training.steps`, continuing from the newest checkpoint; returns the last one.

    Args:
        config: the run's configuration
        dataset: what to train on
        held_out: what to validate with, at a `val_interval` above 0
        about: of the dataset, what is saved with the run and its checkpoints, ready for JSON: split and fingerprint

    Of several processes the first one leads: it decides, validates and writes, and it alone reports how it ended.

    Raises:
        InputError: the output folder cannot be used, or holds other files or another configuration's checkpoints; this
            machine lacks the precision; the batch cannot be trained on; the weights are not finite any more; or no
            step, or none of many in a row, had a finite loss and gradient.
        Interrupted: SIGINT, SIGTERM, SIGUSR1 or SIGHUP came; a checkpoint was written, if anything was learnt
            and no compiler was ended by it.
    """
    check_shares(config)
    precision.check(config.training.precision)
    if ranks.rank():
        return follow(config, dataset)
    out = Path(config.training.out_dir)
    ledger = own(out)
    make_folder(out)
    with exclusive(out):
        run = _Run(config, dataset, held_out, ledger, about or {})
        with run.record.journalled(), stop_requests() as requests:
            run.steps(requests)
        return out / f"step-{run.trainer.step:06d}"


class _Run:
    """A training with its folder."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, held_out: Optional[Dataset], ledger: Ledger, about: dict[str, Any]
    ) -> None:
        self.config = config
        self.trainer = Trainer(config)
        held_out = held_out if held_out and config.validation.val_interval else None
        self.validator = Validator(config, held_out) if held_out else None
        self.dice: Optional[float] = None  # of the last validation
        self.batches = own_batches(config, dataset)
        self.record = Record(config, dataset, held_out, ledger, about, self.trainer)
        self.trainer.follow_the_leader()
        self.begun, self.updates = self.trainer.step, self.trainer.optimiser.count

    @property
    def learnt(self) -> bool:
        """Whether this run has learnt from at least one step, or has none to take."""
        return self.trainer.optimiser.count > self.updates or self.trainer.step == self.begun

    @property
    def _worth_saving(self) -> bool:
        """Whether there is something new, and the last step did not fail: its weights may be what makes all fail."""
        return self.learnt and not self.trainer.skipped_in_a_row

    def steps(self, requests: list[int]) -> None:
        """Train until the last step, a stop request or the end of patience.

        Validation, row and checkpoint come before the question whether to go on, and each checkpoint records which of
        them are done: a run that was stopped in between continues exactly there.
        """
        training, trainer, record = self.config.training, self.trainer, self.record
        if 0 < training.annealed < training.steps:
            screen.note(
                f"note: from step {training.annealed} on the learning rate is 0, and nothing is learnt; see `steps`"
            )
        interval = self.config.validation.val_interval
        if self.validator and interval > training.steps:
            screen.note(f"note: `val_interval` {interval}: this training ends before, at step {training.steps}")
        announce_kernels()
        seen, mean = 0, 0.0
        with screen.Bar(training.steps, "training", "step", trainer.step) as bar:
            while True:
                if trainer.step:
                    self._between(requests)
                willing = trainer.step < training.steps and not record.impatient
                if not all_go_on(trainer, requests, willing, saved=record.saved == trainer.step):
                    break
                with undisturbed():
                    with self._kept():
                        batch = self.batches[trainer.step]
                    result = trainer.train_step(batch)
                self._note(result)
                if not result.skipped:
                    seen += 1
                    mean += (float(np.mean(result.losses["loss"])) - mean) / min(seen, _RECENT)
                bar.words["loss"] = f"{mean:.4f}"
                if self.dice is not None:
                    bar.words["val_dice"] = f"{self.dice:.4f}"
                bar.update()
        if not requests and not self.learnt:
            remedy = "look at them" if training.precision == "fp32" else "look at them, or use `precision` fp32"
            raise InputError(
                f"step {trainer.step}: nothing is learnt, and nothing saved: the loss or its gradient was not a finite "
                f"number in any step, most recently with the images {', '.join(self._images())}; {remedy}"
            )
        if self.learnt and record.saved != trainer.step:
            self._save()
        if not requests and trainer.step > record.logbook.row:  # no checkpoint knows of it: a longer run has it not
            record.row()
        record.picture.draw(at_once=True)
        exchange.tell(None)
        if requests:
            raise Interrupted(requests[0])

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Save what was learnt before an image that the block cannot read ends the training."""
        try:
            yield
        except (InputError, OSError):
            if self._worth_saving and self.trainer.step not in (self.begun, self.record.saved):
                with suppress(InputError, OSError):  # the first complaint counts
                    self._save()
            raise

    def _images(self) -> list[str]:
        """Those of the last step."""
        return self.batches.ids(self.trainer.step - 1)

    def _note(self, result: StepResult) -> None:
        trainer = self.trainer
        if not result.skipped:
            self.record.logbook.add(result.losses, result.t, len(trainer.diffusion), result.norms)
            return
        self.record.logbook.skip()
        ids = self._images()
        numbers = {"loss": str(result.total), "grad_norm": str(result.norms["grad_norm"])}
        self.record.journal.note("skip", trainer.step, images=ids, **numbers, loss_scale=trainer.loss_scale.value)
        if trainer.skipped_in_a_row >= MOST_SKIPS:
            raise InputError(
                f"step {trainer.step}: the loss or its gradient was not a finite number in {MOST_SKIPS} steps "
                f"in a row, most recently with the images {', '.join(ids)}; look at them, lower `lr`, or give "
                "`clip_grad` 1"
            )

    def _between(self, requests: list[int]) -> None:
        """Validation, row and checkpoint, where they are due and not done yet; the row alone if nothing is learnt."""
        config, record, step, improved = self.config, self.record, self.trainer.step, False
        due = self.learnt and record.progress.last != step
        if self.validator and due and step % config.validation.val_interval == 0:
            if requests:
                return
            try:
                with undisturbed(), self._kept():
                    outcome = self.validator(self.trainer.smoothed(), lambda: held_back(requests))
            except Abandoned:
                return
            self.dice, improved = outcome.dice, record.validation(outcome)
        if step % config.training.log_interval == 0 and step > record.logbook.row:
            record.row()
            record.picture.draw()
        if improved:
            record.keep_best(self._save())
        elif self._worth_saving and step % config.training.save_interval == 0 and record.saved != step:
            self._save()

    def _save(self) -> Checkpoint:
        # Weights that make steps fail must not replace earlier ones.
        return self.record.save(replace=self._worth_saving)
