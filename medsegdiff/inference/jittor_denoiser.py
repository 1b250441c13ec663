"""A network on Jittor, as samplers see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsegdiff.checkpoints.foreign import fit
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.diffusion.process import Output
from medsegdiff.kernels import precision
from medsegdiff.nn.unet import Condition, MedSegDiff
from medsegdiff.nn.versions import build_network
from medsegdiff.nn.weights import load
from medsegdiff.runtime.backend import jt
from medsegdiff.runtime.toolchain import announce_kernels


class JittorDenoiser:
    """A `Denoiser`: the network in evaluation mode, computing in the precision `inside` ("fp32", "bf16" or "fp16")."""

    def __init__(self, network: MedSegDiff, inside: str = "fp32") -> None:
        network.eval()
        self.network, self.inside = network, inside
        self.backend, self.mask_shape = f"Jittor {jt.__version__}", network.config.mask_shape

    def encode(self, images: np.ndarray) -> Condition:
        """What depends on the images (N, C, S, S) alone."""
        with jt.no_grad(), precision.using(self.inside):
            condition = self.network.encode(jt.array(images))
            jt.sync([value for value in vars(condition).values() if value is not None])
        return condition

    def gather(self, parts: Sequence[Condition], rows: Sequence[int]) -> Condition:
        """The rows `rows` of all the parts' rows."""
        with jt.no_grad():
            return Condition.join(parts).take(rows)

    def denoise(self, mask_t: np.ndarray, t: float, condition: Condition) -> Output:
        """What the network says of masks (N, M, S, S)."""
        times = jt.array(np.full(len(mask_t), t, np.float32))
        with jt.no_grad(), precision.using(self.inside):
            output = self.network.denoise(jt.array(mask_t), times, condition)
            jt.sync([value for value in output if value is not None])
        return Output(*(None if value is None else value.numpy() for value in output))


def load_denoiser(weights: Weights, inside: str = "fp32") -> JittorDenoiser:
    """A network with trained weights, for segmenting only.

    Raises:
        InputError: the weights do not fit their own configuration, or this machine lacks the precision.
    """
    precision.check(inside)
    config = weights.config.network
    arrays, notes = fit(weights.arrays, config, weights.source)  # before a network of any size is made
    announce_kernels()
    network = build_network(config)
    load(network, arrays, weights.source)
    for note in notes:
        print(f"note: {weights.source}: {note}")
    with precision.using(inside):
        return JittorDenoiser(network.only_segment(), inside)
