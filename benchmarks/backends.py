"""Seconds of the backends and of PyTorch for the same masks, and how well the masks agree.

python -m benchmarks.backends --model-path RUN --images a.jpg b.jpg --out backends.json

A backend's name may have a precision, as in openvino:bf16. Each segments in a process of its own, one after another in
each round. Cold is a new process: imports, loading and the first image, with what Jittor has compiled before; warm are
the further images. Beside the seconds on the clock stand those that the processor worked, which other work on the
machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

BACKENDS = ("jittor", "onnx", "torch")


class TorchDenoiser:
    """A `Denoiser` of the network in PyTorch, eager."""

    def __init__(self, weights: Any) -> None:
        import torch

        from benchmarks.torch_v2 import twin

        self.torch, self.config = torch, weights.config.network
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.network = twin(self.config).eval()
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.arrays.items()})
        self.backend = f"PyTorch {torch.__version__}"
        self.mask_shape = self.config.mask_shape

    def encode(self, images: np.ndarray) -> Any:
        """See `Denoiser`."""
        with self.torch.inference_mode():
            return self.network.encode(self.torch.from_numpy(images))

    def gather(self, parts: Sequence[Any], rows: Sequence[int]) -> Any:
        """See `Denoiser`."""

        def joined(values: tuple[Any, ...]) -> Any:
            if values[0] is None:
                return None
            if isinstance(values[0], list):
                return [joined(column) for column in zip(*values)]
            return self.torch.cat(values)[list(rows)]

        return type(parts[0])(*map(joined, zip(*parts)))

    def denoise(self, mask_t: np.ndarray, t: float, condition: Any) -> Any:
        """See `Denoiser`."""
        from medsegdiff.diffusion.process import Output

        with self.torch.inference_mode():
            times = self.torch.full((len(mask_t),), t)
            said = self.network.denoise(self.torch.from_numpy(mask_t), times, condition)
        return Output(*(None if value is None else value.numpy() for value in said))


def segment(backend: str, model_path: str, images: Sequence[str], members: int, masks: Path) -> None:
    """Segment in this process; print the seconds of each image, since the last one or the start, as JSON."""
    from medsegdiff.api import Segmenter
    from medsegdiff.checkpoints.load import load_any
    from medsegdiff.inference.backends import load_denoiser

    weights = load_any(Path(model_path)).weights
    name, _, precision = backend.partition(":")
    denoiser = TorchDenoiser(weights) if name == "torch" else load_denoiser(weights, name, precision or "fp32")
    segmenter, found, clocks = Segmenter(denoiser, weights.config), [], []
    for image in images:
        found.append(segmenter.segment(image, members=members).probability)
        clocks.append((time.time(), time.process_time()))
    np.savez(masks, *found)
    print(json.dumps({"backend": f"{denoiser.backend} {precision}".strip(), "clocks": clocks}))


def one_side(backend: str, arguments: Sequence[str], masks: Path) -> dict[str, Any]:
    """The seconds of a backend in a new process."""
    begun = time.time()
    command = [sys.executable, "-m", "benchmarks.backends", "--only", backend, "--masks", str(masks), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    clock, worked = zip(*told["clocks"])
    return {
        "backend": told["backend"],
        "cold": clock[0] - begun,
        "cold, processor": worked[0],
        "warm": statistics.median(np.diff(clock).tolist()),
        "warm, processor": statistics.median(np.diff(worked).tolist()),
    }


def dice(masks: Path, others: Path) -> float:
    """The lowest Dice of two files' masks of one image."""
    with np.load(masks) as one, np.load(others) as other:
        pairs = [(one[name] > 0.5, other[name] > 0.5) for name in one.files]
    return min(2 * (a & b).sum() / max(a.sum() + b.sum(), 1) if (a | b).any() else 1.0 for a, b in pairs)


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="a run's folder or a checkpoint")
    parser.add_argument("--images", nargs="+", required=True, help="at least two image files")
    parser.add_argument("--members", type=int, default=5, help="masks an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), metavar="NAME[:PRECISION]")
    parser.add_argument("--out", type=Path, help="where the numbers are written, as JSON")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--masks", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.only:
        segment(options.only, options.model_path, options.images, options.members, options.masks)
        return
    arguments = ["--model-path", options.model_path, "--members", str(options.members), "--images", *options.images]
    with tempfile.TemporaryDirectory() as folder:
        places = {backend: Path(folder) / f"{backend}.npz" for backend in options.backends}
        rounds = [
            {name: one_side(name, arguments, place) for name, place in places.items()} for _ in range(options.rounds)
        ]
        agreement = {name: dice(place, places[options.backends[0]]) for name, place in places.items()}
    quantities = ("cold", "cold, processor", "warm", "warm, processor")
    print(
        "| backend |",
        " | ".join(quantities),
        "| least Dice with the first |\n| --- | ---: | ---: | ---: | ---: | ---: |",
    )
    for name in options.backends:
        medians = [statistics.median(each[name][quantity] for each in rounds) for quantity in quantities]
        print(
            f"| {rounds[0][name]['backend']} |", " | ".join(f"{m:.2f}" for m in medians), f"| {agreement[name]:.5f} |"
        )
    if options.out:
        machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "load": os.getloadavg()}
        told = {"arguments": arguments, "machine": machine, "least_dice": agreement, "rounds": rounds}
        options.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
