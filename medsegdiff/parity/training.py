"""Replaying training: a few steps with every gradient, and the curve on real images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.base.screen import track
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.layouts import isic
from medsegdiff.nn import weights
from medsegdiff.nn.layers import set_dropout
from medsegdiff.parity import kinks
from medsegdiff.parity.cases import Case, normal, stream
from medsegdiff.parity.replay import build
from medsegdiff.parity.report import Row, absolute, relative
from medsegdiff.runtime.backend import jt
from medsegdiff.training.trainer import Measured, Trainer

# A convolution's bias before a batch norm has no gradient; what is computed is rounding noise.
_NO_GRADIENT = re.compile(r"^hwm\.conv_blocks_.*\.conv\.bias$")
_ROUNDING_NOISE = 1e-5
_GRADIENT = 1e-3
CURVES = ("loss_diff", "vb", "loss_cal", "grad_norm")
# Largest relative error within so many steps. Rounding at LeakyReLU's kink, which AdamW enlarges, moves the gradient
# norm of PyTorch itself by 1.4 % with the number of threads or the layout.
_FIRST_STEPS = {"loss_diff": {10: 1e-2}, "vb": {10: 1e-2}, "loss_cal": {10: 1e-2}, "grad_norm": {2: 1e-2, 10: 3e-2}}


def _trainer(case: Case) -> Trainer:
    network = build(case)
    set_dropout(network, 0.0)
    training = TrainingConfig(lr=case.meta["lr"], weight_decay=case.meta.get("weight_decay", 0.0), ema_rate="")
    return Trainer(RunConfig(case.network, case.diffusion, training=training), network)


def train(case: Case) -> list[Row]:
    """A few steps on generated ellipses."""
    trainer, image, mask = _trainer(case), case.image(), case.ellipses()
    ones = np.ones(case.meta["batch"], np.float32)
    buffers = {name: v.numpy() for name, v in weights.state(trainer.network).items() if name not in trainer.parameters}

    def first() -> Measured:
        for name, value in weights.state(trainer.network).items():
            if name in buffers:
                value.assign(jt.array(buffers[name]))
        return trainer.measure(image, mask, case.noise(0), case.arrays["t"][0], ones)

    rows = []
    for step, t in enumerate(case.arrays["t"]):
        measured = trainer.measure(image, mask, case.noise(step), t, ones) if step else first()
        rows += _losses(case, step, measured)
        if step == 0:
            compared = _gradients(case, measured.gradients)
            if not all(row.passed for row in compared):
                gradients, moved = kinks.search(
                    trainer.network, lambda: first().gradients, lambda found: _probe_errors(case, found), _GRADIENT
                )
                compared = [_noted(row, moved) for row in _gradients(case, gradients)]
                measured = measured._replace(gradients=gradients)
            rows += compared
        trainer.descend(measured.gradients)
    return rows + _norms(case, trainer)


def _noted(row: Row, moved: list[kinks.Kink]) -> Row:
    told = ", ".join(f"{kink.unit}[{kink.index}] at {kink.value:.1e}" for kink in moved)
    return replace(row, note=f"{row.note}; put on its other side: {told}") if moved and row.note else row


def _losses(case: Case, step: int, measured: Measured) -> list[Row]:
    tolerance = 1e-4 if step == 0 else 1e-2
    rows = [
        relative(case.name, f"step {step}: {name}", measured.losses[name], case.arrays[name][step], tolerance)
        for name in ("loss_diff", "vb", "loss_cal", "loss")
    ]
    total = relative(case.name, f"step {step}: total", measured.total, case.arrays["total"][step], tolerance)
    return [*rows, total]


def _gradients(case: Case, found: dict[str, Any]) -> list[Row]:
    stored = [str(name) for name in case.arrays["grad_names"]]
    gradients = {name: value.numpy().astype(np.float64) for name, value in found.items()}
    missing = sorted(set(stored) ^ gradients.keys())
    rows = [Row(case.name, "trained parameters", float(len(missing)), 0.0, f"first: {missing[0]}" if missing else "")]
    norms = np.array([np.linalg.norm(gradients[name]) if name in gradients else np.nan for name in stored])
    free = np.array([bool(_NO_GRADIENT.match(name)) for name in stored])
    names = [name for name, f in zip(stored, free) if not f]
    errors = _probe_errors(case, found)
    probes = np.array([errors[name] for name in names])
    worst = f"worst: {names[int(np.argmax(probes))]}"
    return [
        *rows,
        relative(case.name, "gradient norms", norms[~free], case.arrays["grad_norm"][~free], _GRADIENT, names=names),
        Row(case.name, "gradient probes", float(np.nan_to_num(probes, nan=np.inf).max()), _GRADIENT, worst),
        absolute(case.name, "gradients that are zero", norms[free], np.zeros(free.sum()), _ROUNDING_NOISE),
    ]


def _probe_errors(case: Case, gradients: dict[str, Any]) -> dict[str, float]:
    """Errors of the gradients in a random direction, relative to their norms; NaN where there is none."""
    errors = {}
    stored = zip(case.arrays["grad_names"], case.arrays["grad_norm"], case.arrays["grad_probe"])
    for name, norm, probe in ((str(name), norm, probe) for name, norm, probe in stored):
        if not _NO_GRADIENT.match(name):
            value = gradients[name].numpy().astype(np.float64) if name in gradients else np.full(1, np.nan)
            errors[name] = float(abs((value * normal(f"probe:{name}", value.shape)).sum() - probe) / norm)
    return errors


def _norms(case: Case, trainer: Trainer) -> list[Row]:
    ours = {name: np.linalg.norm(v.numpy().astype(np.float64)) for name, v in weights.state(trainer.network).items()}
    rows = []
    for quantity, stored, tolerance in (
        ("param_norm_after", "grad_names", 1e-3),
        ("buffer_norm_after", "buffer_names", 1e-2),
    ):
        norms = dict(zip((str(name) for name in case.arrays[stored]), case.arrays[quantity]))
        names = [n for n in norms if not n.endswith("num_batches_tracked") and not _NO_GRADIENT.match(n)]
        values = np.array([ours.get(name, np.nan) for name in names])
        rows.append(relative(case.name, quantity, values, np.array([norms[n] for n in names]), tolerance, names=names))
    return rows


@dataclass
class Curve:
    """A training curve on real images, step by step."""

    case: Case
    ours: dict[str, np.ndarray]
    rows: list[Row]


def curve(case: Case, isic_train: Path, steps: int) -> Curve:
    """Train on the first images of ISIC 2016, whose training CSV is in `isic_train`, and compare with the stored curve.

    Of the stored steps `steps` are replayed.
    """
    images, masks, rows = _real_images(case, isic_train)
    trainer = _trainer(case)
    zero = re.compile(case.meta["zero"])
    for name, value in trainer.parameters.items():
        if zero.search(name):
            value.assign(value * 0)
    steps = min(steps, case.meta["steps"])
    records = list(track(_curve_steps(case, trainer, images, masks, steps), steps, case.name, "step"))
    ours = {name: np.array([record[name] for record in records]) for name in CURVES}
    for name, bounds in _FIRST_STEPS.items():
        for count, tolerance in bounds.items():
            first = slice(0, min(steps, count))
            quantity = f"{name}, first {first.stop} steps"
            rows.append(relative(case.name, quantity, ours[name][first], case.arrays[name][first], tolerance))
    if steps >= 100:
        late = slice(50, 100)
        for name in ("loss_diff", "loss_cal"):
            theirs = case.arrays[name][late].mean()
            rows.append(relative(case.name, f"{name}, mean of steps 50-99", ours[name][late].mean(), theirs, 5e-2))
    return Curve(case, ours, rows)


def _real_images(case: Case, isic_train: Path) -> tuple[np.ndarray, np.ndarray, list[Row]]:
    count = case.meta["images"]
    dataset = prepare(isic.find(isic_train, "train")[:count], case.config["image_size"], progress=False)
    images = np.stack([dataset.image(i) for i in range(count)])
    masks = np.stack([dataset.mask(i) for i in range(count)])
    rows = [
        absolute(case.name, "images as prepared", images.mean((1, 2, 3)), case.arrays["image0_mean"], 1e-5),
        absolute(case.name, "masks as prepared", masks.mean((1, 2, 3)), case.arrays["mask0_mean"], 1e-5),
    ]
    return images, masks, rows


def _curve_steps(
    case: Case, trainer: Trainer, images: np.ndarray, masks: np.ndarray, steps: int
) -> Iterator[dict[str, Any]]:
    batch = case.meta["batch"]
    ones = np.ones(batch, np.float32)
    for step in range(steps):
        chosen = (batch * step + np.arange(batch)) % len(images)
        t = stream(f"{case.name}:t{step}").integers(0, case.config["diffusion_steps"], batch)
        measured = trainer.measure(images[chosen], masks[chosen], case.noise(step), t, ones)
        means = {name: float(measured.losses[name].mean()) for name in ("loss_diff", "vb", "loss_cal")}
        yield {**means, "grad_norm": trainer.descend(measured.gradients)["grad_norm"]}
