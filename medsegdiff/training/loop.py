"""The training loop: steps, and between them rows of the log, validations, checkpoints and stop requests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml

from medsegdiff.base import ranks, screen
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import clear_leftovers, exclusive, make_folder
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints import folder as checkpoints
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Dataset
from medsegdiff.kernels import precision
from medsegdiff.runtime import exchange
from medsegdiff.runtime.toolchain import announce_kernels
from medsegdiff.training.continuing import compare
from medsegdiff.training.interruption import Interrupted, held_back, stop_requests, undisturbed
from medsegdiff.training.journal import Journal
from medsegdiff.training.logbook import Logbook
from medsegdiff.training.picture import ProgressPicture
from medsegdiff.training.processes import all_go_on, follow, own_batches
from medsegdiff.training.provenance import provenance
from medsegdiff.training.run_folder import CONFIG, EVENTS, LOG, PROGRESS, RUN, SAMPLES, own
from medsegdiff.training.shares import check_shares
from medsegdiff.training.trainer import StepResult, Trainer
from medsegdiff.training.validation import Abandoned, Progress, Validator, write_picture

MOST_SKIPS = 20
_RECENT = 50  # steps that the bar's mean loss is over, roughly


def train(
    config: RunConfig,
    dataset: Dataset,
    held_out: Optional[Dataset] = None,
    about: Optional[dict[str, Any]] = None,
) -> Path:
    """Train to `config.training.steps`, continuing from the newest checkpoint; returns the last one.

    Args:
        config: the run's configuration
        dataset: what to train on
        held_out: what to validate with, at a `val_interval` above 0
        about: of the dataset, what is saved with the run and its checkpoints, ready for JSON: split and fingerprint

    Of several processes the first one leads: it decides, validates and writes, and it alone reports how it ended.

    Raises:
        InputError: the output folder cannot be used or holds what is not training's own, or another
            configuration's checkpoints, this machine lacks
            the precision, the batch cannot be trained on, the weights are not finite any more, or the losses or
            gradients of all steps, or of many in a row, were not.
        Interrupted: SIGINT, SIGTERM, SIGUSR1 or SIGHUP came; a checkpoint was written, if anything was learnt.
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
        with run.journalled(), stop_requests() as requests:
            run.steps(requests)
        return out / f"step-{run.trainer.step:06d}"


class _Run:
    """A training with its folder."""

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        held_out: Optional[Dataset],
        ledger: Ledger,
        about: dict[str, Any],
    ) -> None:
        self.config, self.dataset, self.held_out, self.ledger = config, dataset, held_out, ledger
        self.about = about
        self.out = out = ledger.folder
        self.trainer = Trainer(config)
        self.validator = Validator(config, held_out) if held_out and config.validation.val_interval else None
        self.progress = Progress()
        self.dice: Optional[float] = None  # of the last validation
        training = config.training
        self.logbook = Logbook(out, training.tensorboard, self.validator is not None, training.dice_weight > 0)
        self.picture = ProgressPicture(self.logbook)
        self.journal = Journal(out)
        self.batches = own_batches(config, dataset)
        self.saved = -1
        checkpoints.tidy(out)
        checkpoints.tidy(out / checkpoints.BEST)
        for folder in (out, out / checkpoints.BEST, out / SAMPLES):
            clear_leftovers(folder)
        ledger.claim([LOG, EVENTS, PROGRESS], grows=True)
        resumed = self._resume()
        origin = provenance(dataset, held_out if self.validator else None, config.training.precision)
        with ledger.together(RUN) as stage:
            (stage / CONFIG).write_text(yaml.safe_dump(config.flat(), sort_keys=False))
            (stage / RUN).write_text(json.dumps({**origin, "data": about}, indent=1))
        self.journal.note("resume" if resumed else "start", self.trainer.step, **origin)
        self.trainer.follow_the_leader()
        self.begun, self.updates = self.trainer.step, self.trainer.optimiser.count

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
            self._keep_best(found)
        self.saved = found.step
        screen.note(f"continuing from {self.out}/step-{found.step:06d}")
        return True

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

    @property
    def learnt(self) -> bool:
        """Whether any step of this run was not skipped, or it has none to take."""
        return self.trainer.optimiser.count > self.updates or self.trainer.step == self.begun

    @property
    def _worth_saving(self) -> bool:
        """Whether there is something new, and the last step did not fail: its weights may be what makes all fail."""
        return self.learnt and not self.trainer.skipped_in_a_row

    def steps(self, requests: list[int]) -> None:
        """Train until the last step, a stop request or the end of patience.

        What belongs between two steps is done before it is asked whether to go on, and each checkpoint knows what of
        it is done; so a run that was stopped in between takes it up where it was.
        """
        training, trainer = self.config.training, self.trainer
        announce_kernels()
        seen, mean = 0, 0.0
        with screen.Bar(training.steps, "training", "step", trainer.step) as bar:
            while True:
                if trainer.step:
                    self._between(requests)
                willing = trainer.step < training.steps and not self.impatient
                if not all_go_on(trainer, requests, willing, saved=self.saved == trainer.step):
                    break
                with undisturbed():
                    result = trainer.train_step(self.batches[trainer.step])
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
                f"number in any step, at last with the images {', '.join(self._images())}; {remedy}"
            )
        if self.learnt and self.saved != trainer.step:
            self._save()
        if not requests and trainer.step > self.logbook.row:  # no checkpoint knows of it: a longer run has it not
            self.logbook.write(trainer.step, trainer.step * training.batch_size)
        self.picture.draw(at_once=True)
        exchange.tell(None)
        if requests:
            raise Interrupted(requests[0])

    def _images(self) -> list[str]:
        """Those of the last step."""
        return self.batches.ids(self.trainer.step - 1)

    def _note(self, result: StepResult) -> None:
        trainer = self.trainer
        if not result.skipped:
            self.logbook.add(result.losses, result.t, len(trainer.diffusion), result.norms)
            return
        self.logbook.skip()
        ids = self._images()
        numbers = {"loss": str(result.total), "grad_norm": str(result.norms["grad_norm"])}
        self.journal.note("skip", trainer.step, images=ids, **numbers, loss_scale=trainer.loss_scale.value)
        if trainer.skipped_in_a_row >= MOST_SKIPS:
            raise InputError(
                f"step {trainer.step}: the loss or its gradient was not a finite number in {MOST_SKIPS} steps "
                f"in a row, at last with the images {', '.join(ids)}; look at them, lower `lr`, or give `clip_grad` 1"
            )

    def _between(self, requests: list[int]) -> None:
        """Validation, row and checkpoint, where they are due and not done yet; the row alone if nothing is learnt."""
        training, step, interval = self.config.training, self.trainer.step, self.config.validation.val_interval
        improved = False
        if self.validator and self.learnt and step % interval == 0 and self.progress.last != step:
            if requests:
                return
            try:
                improved = self._validate(self.validator, requests)
            except Abandoned:
                return
        if step % training.log_interval == 0 and step > self.logbook.row:
            self.logbook.write(step, step * training.batch_size)
            self.picture.draw()
        if improved:
            self._keep_best(self._save())
        elif self._worth_saving and step % training.save_interval == 0 and self.saved != step:
            self._save()

    def _validate(self, validator: Validator, requests: list[int]) -> bool:
        step = self.trainer.step
        with undisturbed():
            outcome = validator(self.trainer.smoothed(), lambda: held_back(requests))
        self.dice, improved = outcome.dice, self.progress.take(step, outcome.dice)
        write_picture(self.ledger, step, outcome.picture)
        self.logbook.validate(step, outcome.dice, outcome.picture)
        self.journal.note("validation", step, dice=outcome.dice, best=self.progress.best, stale=self.progress.stale)
        return improved

    def _save(self) -> Checkpoint:
        found = self.trainer.checkpoint(
            self.dataset.fingerprint,
            log=self.logbook.state(),
            row=self.logbook.row,
            validation=dataclasses.asdict(self.progress),
            data=self.about,
        )
        self.logbook.flush()  # a checkpoint must not outlive the rows before it
        # Weights of which steps fail may not take the place of those before.
        keep = self.config.training.keep if self._worth_saving else 0
        path = checkpoints.save(self.out, found, keep)
        self.saved = found.step
        self.journal.note("checkpoint", found.step, path=path.name)
        return found

    def _keep_best(self, found: Checkpoint) -> None:
        folder = make_folder(self.out / checkpoints.BEST)
        path = checkpoints.save(folder, found)
        for other in checkpoints.list_checkpoints(folder):
            if other != path:
                checkpoints.remove(other)
        self.journal.note("best", found.step, dice=self.progress.best)
