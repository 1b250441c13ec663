"""Every gradient of a training step, ours and PyTorch's: what is rounding, and what is a choice made by rounding.

    python -m benchmarks.gradients [--versions v1 new] [--sizes 64 128 256] [--width 128]

A LeakyReLU has two slopes and a maximum has two sides: an activation within rounding of zero, or two that are equal but
for rounding, choose one here and another there, and every gradient behind them differs by up to a percent with nobody
wrong. So ours are compared twice with the network of `torch_network.py` in float64: as it is, and with the activations
of the conditioning network held at our values, so that all choices are ours and what is left is rounding. The weights,
images and masks are those of the parity cases: functions of names.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable

import numpy as np
import torch

from benchmarks.torch_loss import TorchLosses, TorchTrainingLoss
from benchmarks.torch_network import TorchMedSegDiff, load_parity_weights, set_dropout
from benchmarks.torch_v2 import twin
from medsegdiff.config.run import RunConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.nn import layers
from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.parity.cases import Case, stream
from medsegdiff.parity.replay import build
from medsegdiff.training.trainer import Trainer

Arrays = dict[str, np.ndarray]
# A convolution's bias before a batch norm has no gradient; what is computed is rounding noise.
NO_GRADIENT = re.compile(r"^hwm\.conv_blocks_.*\.conv\.bias$")


def make_case(version: str, size: int, width: int) -> Case:
    """A training step of the published network, perhaps of another width, on one image, or two if they are small."""
    batch = 1 if size > 64 else 2  # a batch norm of the deepest maps, size / 32, needs numbers
    name = f"train-{version}-{size}"
    config = {"version": version, "image_size": size, "num_channels": width, "in_ch": 4, "diffusion_steps": 100}
    t = stream(f"{name}:t").integers(0, 100, batch)
    if version == "v2":
        t[0] -= t[0] % 5  # or the conditioning network's own loss would count for none
    return Case(name, "train", {"config": config, "batch": batch}, {"t": t[None]})


@contextmanager
def watching(network: MedSegDiff) -> Iterator[Arrays]:
    """The normalised map of each unit of the conditioning network, by its name, as it is computed inside the block."""
    maps: Arrays = {}
    norms = {name: unit.instnorm for name, unit in network.hwm.named_modules() if hasattr(unit, "instnorm")}

    def watched(unit: str, normalise: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def execute(x: Any) -> Any:
            z = normalise(x)
            maps[unit] = z.numpy()
            return z

        return execute

    for name, norm in norms.items():
        norm.execute = watched(name, norm.execute)
    try:
        yield maps
    finally:
        for norm in norms.values():
            del norm.execute


def our_step(case: Case) -> tuple[Arrays, Arrays]:
    """Our gradients of the case's first step, and the maps of `watching`."""
    network = build(case)
    layers.set_dropout(network, 0.0)
    trainer = Trainer(RunConfig(case.network, case.diffusion, training=TrainingConfig(ema_rate="")), network)
    with watching(network) as maps:
        ones = np.ones(case.meta["batch"], np.float32)
        measured = trainer.measure(case.image(), case.ellipses(), case.noise(0), case.arrays["t"][0], ones)
    return {name: gradient.numpy() for name, gradient in measured.gradients.items()}, maps


def torch_loss(case: Case) -> TorchTrainingLoss:
    """The loss of the case's network."""
    config = RunConfig(case.network)
    anchor = (config.training.anchor_alpha, config.training.anchor_beta) if config.anchor_loss == "dice_ce" else None
    return TorchTrainingLoss(Diffusion(case.diffusion), anchor)


def step_of(case: Case, network: TorchMedSegDiff, dtype: torch.dtype, step: int = 0) -> tuple[Any, ...]:
    """What a `torch_loss` is given of a step of the case: prediction, mask, noise, noisy mask, timesteps."""
    loss, t = torch_loss(case), case.arrays["t"][step]
    image, mask, noise = (torch.from_numpy(a).to(dtype) for a in (case.image(), case.ellipses(), case.noise(step)))
    x_t = loss.noisy(mask, noise, t)
    return network(image, x_t, loss.network_time(t, mask)), mask, noise, x_t, t


def torch_step(
    case: Case, dtype: torch.dtype, prepare: Callable[[TorchMedSegDiff], Any] = lambda network: None
) -> tuple[TorchLosses, Arrays]:
    """PyTorch's losses and gradients (float64) of the case's first step, by a network that `prepare` may change."""
    network = twin(case.network).to(dtype)
    load_parity_weights(network)
    set_dropout(network, 0.0)
    prepare(network.train())
    losses = torch_loss(case)(*step_of(case, network, dtype))
    losses.total().backward()
    return losses, {name: p.grad.double().numpy() for name, p in network.named_parameters()}


def beside(network: TorchMedSegDiff, maps: Arrays, hold: bool) -> tuple[Arrays, Arrays]:
    """Compare each unit of the conditioning network with `maps`, and on demand hold its activations at those of `maps`.

    The gradients of what is held pass as they would through the network's own.

    Returns, filled as the network computes: the largest error of each unit's map, and those of its values that have the
    other sign in `maps`.
    """
    errors: Arrays = {}
    crossed: Arrays = {}

    def watch(unit: str, layer: torch.nn.LeakyReLU) -> None:
        def hook(module: Any, args: tuple[torch.Tensor], _: Any) -> torch.Tensor | None:
            z, ours = args[0], torch.from_numpy(maps[unit])
            away = z.detach()
            errors[unit] = (away - ours).abs().max().numpy()
            crossed[unit] = away[(away > 0) != (ours > 0)].numpy()
            if not hold:
                return None
            output = z * torch.where(ours > 0, 1.0, module.negative_slope).to(z)
            # In float32 as there, so that what is equal there, a maximum's candidates, is equal here.
            return output + (module.forward(ours).to(z) - output.detach())

        layer.register_forward_hook(hook)

    for name, layer in network.hwm.named_modules():
        if name.endswith(".activation"):
            watch(name[: -len(".activation")], layer)
    return errors, crossed


def differences(found: Arrays, exact: Arrays) -> dict[str, float]:
    """The norm of each gradient's error divided by the gradient's, worst first; without gradients of norm 0."""
    errors = {
        name: float(np.linalg.norm(found[name].reshape(value.shape) - value) / np.linalg.norm(value))
        for name, value in exact.items()
        if not NO_GRADIENT.match(name)
    }
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def main(argv: Sequence[str] | None = None) -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=["v1", "new"], choices=["v1", "new", "v2"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--width", type=int, default=128, help="64 or more: groups of one channel have no gradient")
    options = parser.parse_args(argv)
    for version in options.versions:
        for size in options.sizes:
            case = make_case(version, size, options.width)
            ours, maps = our_step(case)
            kept: list[tuple[Arrays, Arrays]] = []
            exact, same = (
                torch_step(case, torch.float64, lambda network: kept.append(beside(network, maps, hold)))[1]  # noqa: B023
                for hold in (False, True)
            )
            theirs = torch_step(case, torch.float32)[1]
            errors, crossed = kept[0][0], np.concatenate(list(kept[0][1].values()))
            print(f"{case.name}, width {options.width}: largest error of a map {max(errors.values()):.1e};")
            print(f"  {len(crossed)} activations of another sign, within {np.abs(crossed).max(initial=0):.1e} of zero")
            for title, found in (
                ("PyTorch float32", differences(theirs, exact)),
                ("ours", differences(ours, exact)),
                ("ours, same choices", differences(ours, same)),
            ):
                worst = ", ".join(f"{name} {error:.1e}" for name, error in list(found.items())[:3])
                print(f"  {title}: median {np.median(list(found.values())):.1e}; {worst}", flush=True)


if __name__ == "__main__":
    main()
