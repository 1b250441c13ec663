"""Training: one step, and the loop around it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import yaml
from tqdm import tqdm

from medsegdiff.data.cache import Prepared
from medsegdiff.data.loader import Batch, Batches
from medsegdiff.diffusion.losses import TrainingLoss
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.diffusion.timesteps import make_timesteps
from medsegdiff.engine import checkpoint as checkpoints
from medsegdiff.engine.checkpoint import Checkpoint
from medsegdiff.engine.config import RunConfig, difference
from medsegdiff.engine.logbook import Logbook
from medsegdiff.engine.optimiser import AdamW, Average, global_norm
from medsegdiff.nn import weights
from medsegdiff.nn.network import MedSegDiff
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.errors import InputError
from medsegdiff.runtime.files import make_folder, replacing
from medsegdiff.runtime.randomness import generator
from medsegdiff.runtime.toolchain import announce_kernels


class StepResult(NamedTuple):
    """What one training step measured."""

    losses: dict[str, np.ndarray]
    """(N,) each: loss_diff, vb (where the variance is learned), loss (their sum), loss_cal."""
    t: np.ndarray
    """(N,) timesteps."""
    total: float
    """The scalar that was descended."""
    norms: dict[str, float]
    """grad_norm before, param_norm after the step."""


class Measured(NamedTuple):
    """Losses of a batch, and which way is down."""

    losses: dict[str, np.ndarray]
    """(N,) each: loss_diff, vb (where the variance is learned), loss, loss_cal."""
    total: float
    """The scalar that is descended."""
    gradients: dict[str, Any]
    """Its gradient by parameter."""


class Trainer:
    """A network in training, with everything that a step changes."""

    def __init__(self, config: RunConfig, network: Optional[MedSegDiff] = None) -> None:
        training = config.training
        self.config = config
        self.network = network or MedSegDiff(config.network).initialise(training.seed)
        self.network.train()
        self.parameters = weights.parameters(self.network)
        self.diffusion = Diffusion(config.diffusion)
        self.loss = TrainingLoss(self.diffusion)
        self.timesteps = make_timesteps(training.schedule_sampler, len(self.diffusion))
        self.optimiser = AdamW(self.parameters, training.weight_decay)
        state = weights.state(self.network)
        self.averages = {rate: Average(state, float(rate), training.ema_warmup) for rate in training.ema_rates}
        self.step = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        training = self.config.training
        if not training.lr_anneal_steps:
            return training.lr
        return training.lr * max(0.0, 1 - self.step / training.lr_anneal_steps)

    def _streams(self, purpose: str, samples: int) -> list[np.random.Generator]:
        return [generator(self.config.training.seed, purpose, self.step, sample) for sample in range(samples)]

    def train_step(self, batch: Batch) -> StepResult:
        """Draw timesteps and noise for `batch`, and descend."""
        shape = batch.masks.shape
        t, importance = self.timesteps.draw(self._streams("timestep", shape[0]))
        noise = np.stack([g.standard_normal(shape[1:], np.float32) for g in self._streams("noise", shape[0])])
        measured = self.measure(batch.images, batch.masks, noise, t, importance)
        self.timesteps.update(t, measured.losses["loss"])
        return StepResult(measured.losses, t, measured.total, self.descend(measured.gradients))

    def measure(
        self, images: np.ndarray, masks: np.ndarray, noise: np.ndarray, t: np.ndarray, importance: np.ndarray
    ) -> Measured:
        """Losses and gradients for images (N, C, S, S), masks and noise (N, M, S, S), timesteps (N,)."""
        count = len(images)
        size = self.config.training.microbatch if self.config.training.microbatch > 0 else count
        dropout = self._streams("dropout", count)
        gradients: dict[str, Any] = {}
        parts: list[dict[str, Any]] = []
        for start in range(0, count, size):
            rows = slice(start, start + size)
            self.network.dropout_streams.generators = dropout[rows]
            losses, total = self._forward(images[rows], masks[rows], noise[rows], t[rows], importance[rows])
            total = total * (len(images[rows]) / count)
            grads = jt.grad(total, list(self.parameters.values()))
            for name, grad in zip(self.parameters, grads):
                gradients[name] = gradients[name] + grad if name in gradients else grad
            parts.append({**losses, "total": total.reshape(1)})
            # Every part is computed before the next, or all activations live at once.
            jt.sync([*gradients.values(), *parts[-1].values()])
        arrays = {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
        total = float(arrays.pop("total").sum())
        return Measured(arrays, total, gradients)

    def descend(self, gradients: dict[str, Any]) -> dict[str, float]:
        """One optimiser step; returns grad_norm, and param_norm after it."""
        self.optimiser.step(gradients, self.lr)
        self.step += 1
        for average in self.averages.values():
            average.update(self.step)
        norms = {"grad_norm": global_norm(gradients), "param_norm": global_norm(self.parameters)}
        jt.sync_all(True)
        return {name: float(value.item()) for name, value in norms.items()}

    def _forward(
        self, images: np.ndarray, masks: np.ndarray, noise: np.ndarray, t: np.ndarray, importance: np.ndarray
    ) -> tuple[dict[str, Any], Any]:
        x_t = jt.array(self.loss.noisy(masks, noise, t))
        prediction = self.network(jt.array(images), x_t, jt.array(self.loss.network_time(t)))
        losses = self.loss(prediction, jt.array(masks), jt.array(noise), x_t, t)
        named = {"loss": losses.diffusion, "loss_diff": losses.diff, "loss_cal": losses.cal}
        if losses.vb is not None:
            named["vb"] = losses.vb
        return named, losses.total(jt.array(importance))

    def checkpoint(self, logbook: Optional[Logbook] = None, dataset: str = "") -> Checkpoint:
        """Everything that `restore` needs."""
        arrays = {
            "model": weights.to_arrays(weights.state(self.network)),
            "optimizer": weights.to_arrays(self.optimiser.state()),
            **{f"ema-{rate}": weights.to_arrays(a.values) for rate, a in self.averages.items()},
        }
        training = {
            "timesteps": {name: value.tolist() for name, value in self.timesteps.state().items()},
            "log": logbook.state() if logbook else {},
        }
        return Checkpoint(self.step, self.config, arrays, training, dataset)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue exactly where `checkpoint` was written."""
        weights.load(self.network, checkpoint.arrays["model"])
        self.optimiser.load(checkpoint.arrays["optimizer"], checkpoint.step)
        for rate, average in self.averages.items():
            average.load(checkpoint.arrays.get(f"ema-{rate}", checkpoint.arrays["model"]))
        saved = checkpoint.training["timesteps"]
        if saved.keys() == self.timesteps.state().keys():
            self.timesteps.load({name: np.array(values) for name, values in saved.items()})
        self.step = checkpoint.step


class Interrupted(Exception):
    """Training was asked to stop and has saved a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them."""
    requests: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: requests.append(n)) for number in numbers}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold stop requests back until the block is done.

    The compilers that a step starts inherit this, and so survive a Ctrl-C that goes to the whole group.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _resume(trainer: Trainer, logbook: Logbook, out: Path, fingerprint: str) -> None:
    found, complaints = checkpoints.load_newest(out)
    for complaint in complaints:
        print(f"skipped: {complaint}", file=sys.stderr)
    if found is None:
        if complaints:
            raise InputError(f"{out}: none of its checkpoints can be used; give another --out-dir, or move them away")
        return
    for section in ("network", "diffusion"):
        differs = difference(getattr(trainer.config, section), getattr(found.config, section))
        if differs:
            raise InputError(
                f"{out}: was trained with {differs}; give the same options to continue, or another --out-dir"
            )
    if found.dataset != fingerprint:
        raise InputError(f"{out}: was trained on other images or masks; give the same data, or another --out-dir")
    for name in ("seed", "batch_size", "lr", "schedule_sampler", "ema_rate"):
        ours, theirs = getattr(trainer.config.training, name), getattr(found.config.training, name)
        if ours != theirs:
            print(f"note: continuing with --{name.replace('_', '-')} {ours}, was {theirs}", file=sys.stderr)
    trainer.restore(found)
    logbook.resume(found.step, found.training["log"])
    print(f"continuing from {out}/step-{found.step:06d}", file=sys.stderr)


def train(config: RunConfig, dataset: Prepared) -> Path:
    """Train to `config.training.steps`, continuing from the newest checkpoint; returns the last one.

    Raises:
        InputError: the output folder cannot be used, or holds another configuration's checkpoints.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
    """
    training = config.training
    out = make_folder(Path(training.out_dir))
    trainer = Trainer(config)
    logbook = Logbook(out, training.tensorboard)
    _resume(trainer, logbook, out, dataset.fingerprint)
    with replacing(out / "config.yaml") as beside:
        beside.write_text(yaml.safe_dump(config.flat(), sort_keys=False))
    batches = Batches(dataset, training.batch_size, training.seed, config.data.augment)
    saved = trainer.step if trainer.step else -1

    def save() -> None:
        nonlocal saved
        if saved != trainer.step:
            checkpoints.save(out, trainer.checkpoint(logbook, dataset.fingerprint), training.keep)
            saved = trainer.step

    announce_kernels()
    with _stop_requests() as requests, _progress(trainer.step, training.steps) as bar:
        while trainer.step < training.steps and not requests:
            with _undisturbed():
                result = trainer.train_step(batches[trainer.step])
            logbook.add(result.losses, result.t, len(trainer.diffusion), result.norms)
            bar.set_postfix(loss=f"{result.total:.4f}", refresh=False)
            bar.update()
            if trainer.step % training.log_interval == 0 or trainer.step == training.steps:
                logbook.write(trainer.step, trainer.step * training.batch_size)
            if trainer.step % training.save_interval == 0:
                save()
        save()
    logbook.close()
    if requests:
        raise Interrupted(requests[0])
    return out / f"step-{trainer.step:06d}"


def _progress(done: int, total: int) -> tqdm:
    quiet = not sys.stderr.isatty()
    return tqdm(initial=done, total=total, unit="step", mininterval=20 if quiet else 0.2, dynamic_ncols=True)
