"""One training step: the network in training, with everything that a step changes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import numpy as np

from medsegdiff.base import ranks
from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.checkpoints.finite import REMEDY, broken
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Batch
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.diffusion.timesteps import TIMESTEPS
from medsegdiff.kernels import precision
from medsegdiff.nn import weights
from medsegdiff.nn.recompute import set_recomputed
from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.nn.versions import build_network
from medsegdiff.runtime import exchange
from medsegdiff.runtime.backend import jt
from medsegdiff.training.learning_rate import learning_rate
from medsegdiff.training.loss_scale import LossScale
from medsegdiff.training.losses import DiceCe, TrainingLoss
from medsegdiff.training.optimiser import AdamW, Average, global_norm
from medsegdiff.training.shares import rows_of, whole

LONGEST = 1e19
"""The norm of a gradient that can be learnt from: the square of a longer one, a second moment, may be infinite."""


class StepResult(NamedTuple):
    """What one training step measured."""

    losses: dict[str, np.ndarray]
    """(N,) each: loss_diff, vb (where the variance is learned), loss (their sum), loss_cal; loss_dice if asked for."""
    t: np.ndarray
    """(N,) timesteps."""
    total: float
    """The scalar that was descended."""
    norms: dict[str, float]
    """grad_norm before, param_norm after the step."""
    skipped: bool = False
    """Whether nothing was learnt, as the losses or the gradient are not finite, or it is too long."""


class Measured(NamedTuple):
    """Losses of a batch, and their gradients."""

    losses: dict[str, np.ndarray]
    """(N,) each: as `StepResult.losses`."""
    total: float
    """The scalar that is descended."""
    gradients: dict[str, Any]
    """Its gradient by parameter."""


class Trainer:
    """A network in training, with everything that a step changes.

    Of several processes each has one, computes its rows of a batch, and learns from the gradient of all; so all hold
    the same, but for the averages, which only the leader keeps.
    """

    def __init__(self, config: RunConfig, network: Optional[MedSegDiff] = None) -> None:
        training = config.training
        self.config = config
        self.network = network or build_network(config.network).initialise(training.seed)
        self.network.train()
        set_recomputed(self.network, training.use_checkpoint)
        self.state = weights.state(self.network)
        self.parameters = weights.parameters(self.network)
        self.diffusion = Diffusion(config.diffusion)
        anchor = DiceCe(training.anchor_alpha, training.anchor_beta) if config.anchor_loss == "dice_ce" else None
        self.loss = TrainingLoss(self.diffusion, training.dice_weight, anchor)
        self.timesteps = TIMESTEPS[training.schedule_sampler](len(self.diffusion))
        self.optimiser = AdamW(self.parameters, training.weight_decay, decay_all=training.decay == "all")
        rates = training.ema_rates if ranks.rank() == 0 else []
        self.averages = {rate: Average(self.state, float(rate), training.ema_warmup) for rate in rates}
        half = training.precision == "fp16"
        self.loss_scale = LossScale(training.fp16_scale_growth) if half else LossScale(growth=0, start=1.0)
        self.step = 0
        self.skipped_in_a_row = 0
        jt.sync_all()  # what is held from now on lies together in memory, apart from what lives for a step

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.config.training, self.step)

    def _streams(self, purpose: str, samples: Iterable[int]) -> list[np.random.Generator]:
        return [generator(self.config.training.seed, purpose, self.step, sample) for sample in samples]

    def _rows(self, count: int) -> np.ndarray:
        """Which rows of the global batch this process has, if it has `count`."""
        return rows_of(ranks.rank(), count * ranks.count(), self.config.training.microbatch)

    def train_step(self, batch: Batch) -> StepResult:
        """Draw timesteps and noise for `batch`, this process's rows, and descend; the result is that of all rows.

        Where a loss or the gradient is not finite, or that is longer than `LONGEST`, the step counts but leaves
        everything that is learnt as it was. Where that may be the loss scale's fault, which is then lowered, it is not
        counted as skipped in a row.

        Raises:
            InputError: a parameter or a running statistic is not finite after the step.
        """
        shape = batch.masks.shape
        rows = self._rows(shape[0])
        t, importance = self.timesteps.draw(self._streams("timestep", range(shape[0] * ranks.count())))
        noise = np.stack([g.standard_normal(shape[1:], np.float32) for g in self._streams("noise", rows)])
        buffers = {name: value.detach() for name, value in self.state.items() if weights.is_buffer(name)}
        measured = self.measure(batch.images, batch.masks, noise, t[rows], importance[rows])
        norm = float(global_norm(measured.gradients).item())
        losses = measured.losses
        healthy = math.isfinite(measured.total) and all(np.isfinite(loss).all() for loss in losses.values())
        usable = norm <= LONGEST
        rescaled = healthy and self.loss_scale.update(usable)
        if not (healthy and usable):
            for name, value in buffers.items():
                self.state[name].update(value)
            jt.sync_all(True)
            self.step += 1
            self.skipped_in_a_row += not rescaled
            return StepResult(losses, t, measured.total, {"grad_norm": norm}, skipped=True)
        self.skipped_in_a_row = 0
        self.timesteps.update(t, losses["loss"])
        norms = self.descend(measured.gradients, norm)
        self._check(norms["param_norm"])
        return StepResult(losses, t, measured.total, norms)

    def _check(self, length: float) -> None:
        """Refuse weights that are not finite: `length`, the norm of the parameters, tells of them all."""
        buffers = [value.reshape(-1) for name, value in self.state.items() if weights.is_buffer(name)]
        if math.isfinite(length) and np.isfinite(jt.concat(buffers).numpy()).all():
            return
        if found := broken(weights.to_arrays(self.state)):
            raise InputError(f"step {self.step}: training has broken the weights: {found}; {REMEDY}")

    def measure(
        self, images: np.ndarray, masks: np.ndarray, noise: np.ndarray, t: np.ndarray, importance: np.ndarray
    ) -> Measured:
        """Losses and gradients for images (N, C, S, S), masks and noise (N, M, S, S), timesteps (N,).

        Of several processes each gives its own rows; the result is that of all rows.
        """
        count, microbatch = len(images), self.config.training.microbatch
        size = microbatch // ranks.count() if microbatch > 0 else count
        dropout = self._streams("dropout", self._rows(count))
        gradients: dict[str, Any] = {}
        parts: list[dict[str, np.ndarray]] = []
        scale = self.loss_scale.value
        for start in range(0, count, size):
            rows = slice(start, start + size)
            self.network.dropout_streams.generators = dropout[rows]
            with precision.using(self.config.training.precision):
                losses, total = self._forward(images[rows], masks[rows], noise[rows], t[rows], importance[rows])
                total = total * (len(images[rows]) / count)
                losses["total"] = total.reshape(1)
                # A graph that is retained holds every activation as long as its gradients live.
                grads = jt.grad(total * scale, list(self.parameters.values()), retain_graph=False)
            for name, grad in zip(self.parameters, grads):
                gradients[name] = gradients[name] + grad if name in gradients else grad
            # Every part is computed before the next, or all activations live at once.
            jt.sync([*gradients.values(), *losses.values()])
            parts.append({name: loss.numpy() for name, loss in losses.items()})
        total = float(exchange.gather(sum(part.pop("total") for part in parts)).mean())
        values = np.stack([np.concatenate([part[name] for part in parts]) for name in parts[0]])
        if scale != 1:  # on its own: what it would be fused with may be rounded in another order
            gradients = {name: grad * (1 / scale) for name, grad in gradients.items()}
            jt.sync(list(gradients.values()))
        return Measured(dict(zip(parts[0], whole(values, microbatch))), total, exchange.mean(gradients))

    def descend(self, gradients: dict[str, Any], norm: Optional[float] = None) -> dict[str, float]:
        """One optimiser step; returns grad_norm before it (`norm`, where it is known), and param_norm after it."""
        if norm is None:
            norm = float(global_norm(gradients).item())
        clip = self.config.training.clip_grad
        self.optimiser.step(gradients, self.lr, clip / norm if 0 < clip < norm else 1.0)
        # Before the averages, which Jittor would, on a GPU, compute in one go with the weights: other processes have
        # none, and what is computed by other kernels rounds differently.
        jt.sync_all()
        self.step += 1
        for average in self.averages.values():
            average.update(self.step)
        length = global_norm(self.parameters)
        jt.sync_all(True)
        return {"grad_norm": norm, "param_norm": float(length.item())}

    def _forward(
        self, images: np.ndarray, masks: np.ndarray, noise: np.ndarray, t: np.ndarray, importance: np.ndarray
    ) -> tuple[dict[str, Any], Any]:
        x_t = jt.array(self.loss.noisy(masks, noise, t)).stop_grad()
        prediction = self.network(jt.array(images).stop_grad(), x_t, jt.array(self.loss.network_time(t)))
        losses = self.loss(prediction, jt.array(masks), jt.array(noise), x_t, t)
        named = {"loss": losses.diffusion, "loss_diff": losses.diff, "loss_cal": losses.cal}
        if losses.vb is not None:
            named["vb"] = losses.vb
        if losses.dice is not None:
            named["loss_dice"] = losses.dice
        return named, losses.total(jt.array(importance))

    def smoothed(self) -> dict[str, Any]:
        """The state to segment with: the first average, or the raw one where none is kept."""
        return next((average.values for average in self.averages.values()), self.state)

    def follow_the_leader(self) -> None:
        """Take over from process 0 everything that a step changes, but its averages."""
        exchange.take_over([*self.state.values(), *self.optimiser.state().values()])
        timesteps = {name: value.tolist() for name, value in self.timesteps.state().items()}
        counts = [self.step, self.optimiser.count, self.skipped_in_a_row]
        counts, timesteps, loss_scale = exchange.tell([counts, timesteps, self.loss_scale.state()])
        self.step, self.optimiser.count, self.skipped_in_a_row = counts
        self.loss_scale.load(loss_scale)
        self.timesteps.load({name: np.array(values) for name, values in timesteps.items()})

    def checkpoint(self, dataset: str = "", **more: Any) -> Checkpoint:
        """Everything that `restore` needs, and what else (`more`) the caller will."""
        arrays = {
            "model": weights.to_arrays(self.state),
            "optimizer": weights.to_arrays(self.optimiser.state()),
            **{f"ema-{rate}": weights.to_arrays(a.values) for rate, a in self.averages.items()},
        }
        training = {
            "timesteps": {name: value.tolist() for name, value in self.timesteps.state().items()},
            "updates": self.optimiser.count,
            "skipped_in_a_row": self.skipped_in_a_row,
            "loss_scale": self.loss_scale.state(),
            **more,
        }
        return Checkpoint(self.step, self.config, arrays, training, dataset)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue exactly where `checkpoint` was written."""
        weights.load(self.network, checkpoint.arrays["model"])
        saved = checkpoint.training
        self.optimiser.load(checkpoint.arrays["optimizer"], saved.get("updates", checkpoint.step))
        for rate, average in self.averages.items():
            average.load(checkpoint.arrays.get(f"ema-{rate}", checkpoint.arrays["model"]))
        if saved["timesteps"].keys() == self.timesteps.state().keys():
            self.timesteps.load({name: np.array(values) for name, values in saved["timesteps"].items()})
        self.step = checkpoint.step
        self.skipped_in_a_row = saved.get("skipped_in_a_row", 0)
        if checkpoint.config.training.precision == self.config.training.precision and "loss_scale" in saved:
            self.loss_scale.load(saved["loss_scale"])
