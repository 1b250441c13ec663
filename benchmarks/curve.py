"""The training curve on real images once more in PyTorch: how much rounding alone changes it.

    python -m benchmarks.curve --isic-dir DIR --threads 2 --channels-last [--steps 10]

The same network, data and steps as `medsegdiff parity tests/parity/cases/curve-isic-64.npz`; prints the relative
difference of each step's losses and gradient norm to the stored numbers. Two threads and channels-last images give
the losses of the first two steps to the last bit, on a CPU with AVX-512, so by all signs the curve was computed like
that: PyTorch sums the statistics of batch norms in float32 then, thread by thread. The other cases are met best in the
usual layout.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.torch_loss import TorchTrainingLoss
from benchmarks.torch_network import TorchMedSegDiff, load_parity_weights, set_dropout
from medsegdiff.data.cache import prepare
from medsegdiff.data.layouts import isic
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.parity.cases import Case, load, stream

CASE = Path("tests/parity/cases/curve-isic-64.npz")


def start(case: Case, dtype: torch.dtype) -> TorchMedSegDiff:
    """The network as the case starts it."""
    network = TorchMedSegDiff(case.network)
    load_parity_weights(network)
    set_dropout(network, 0.0)
    zero = re.compile(case.meta["zero"])
    with torch.no_grad():
        for name, value in network.named_parameters():
            if zero.search(name):
                value.zero_()
    return network.to(dtype).train()


def main(argv: Sequence[str] | None = None) -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isic-dir", type=Path, required=True, help="folder with the ISIC 2016 training CSV")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=int, help="PyTorch's own choice if not given")
    parser.add_argument("--channels-last", action="store_true", help="how the images lie in memory")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    case, dtype = load(CASE), getattr(torch, options.precision)
    batch, images = case.meta["batch"], case.meta["images"]
    dataset = prepare(isic.find(options.isic_dir, "train")[:images], case.config["image_size"])
    network = start(case, dtype)
    optimiser = torch.optim.AdamW(network.parameters(), lr=case.meta["lr"], weight_decay=0.0)
    loss = TorchTrainingLoss(Diffusion(case.diffusion))
    print(f"{options.precision}: relative difference to the stored numbers")
    for step in range(options.steps):
        chosen = [(batch * step + i) % images for i in range(batch)]
        image, mask = (
            torch.from_numpy(np.stack([read(i) for i in chosen])).to(dtype, memory_format=layout)
            for read in (dataset.image, dataset.mask)
        )
        noise = torch.from_numpy(case.noise(step)).to(dtype)
        t = stream(f"{case.name}:t{step}").integers(0, case.config["diffusion_steps"], batch)
        x_t = loss.noisy(mask, noise, t)
        losses = loss(network(image, x_t, loss.network_time(t, x_t)), mask, noise, x_t, t)
        optimiser.zero_grad()
        losses.total().backward()
        squares = sum(p.grad.double().square().sum().item() for p in network.parameters())
        found = {
            "loss_diff": losses.diff.mean().item(),
            "vb": losses.vb.mean().item(),
            "loss_cal": losses.cal.mean().item(),
            "grad_norm": squares**0.5,
        }
        optimiser.step()
        differences = (f"{name} {value / case.arrays[name][step] - 1:+.1e}" for name, value in found.items())
        print(f"step {step}: {', '.join(differences)}", flush=True)


if __name__ == "__main__":
    main()
