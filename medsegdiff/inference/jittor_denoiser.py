"""A network on Jittor, as samplers see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.diffusion import samplers
from medsegdiff.diffusion.process import Output
from medsegdiff.kernels import precision
from medsegdiff.nn.network import Condition, MedSegDiff
from medsegdiff.runtime.backend import jt


def network_denoise(
    network: MedSegDiff, condition: Condition, inside: str = "fp32", names: Sequence[str] = ()
) -> samplers.Denoise:
    """The denoise function, of NumPy arrays, that samplers see; the network computes in precision `inside`.

    It raises `InputError` where a prediction is not finite, with the name of the row's image if `names` are given.
    """

    def denoise(mask_t: np.ndarray, t: float) -> Output:
        times = jt.array(np.full(len(mask_t), t, np.float32))
        with jt.no_grad(), precision.using(inside):
            prediction = network.denoise(jt.array(mask_t), times, condition)
            jt.sync([value for value in prediction if value is not None])
        output = Output(*(None if value is None else value.numpy() for value in prediction))
        broken = [~np.isfinite(value).reshape(len(value), -1).all(axis=1) for value in output if value is not None]
        rows = np.flatnonzero(np.any(broken, axis=0))
        if len(rows):
            image = f"{names[rows[0]]}: " if names else ""
            remedy = "use another checkpoint" + ("" if inside == "fp32" else ", or --precision fp32")
            raise InputError(f"{image}what the network predicts is not finite, which makes no mask; {remedy}")
        return output

    return denoise
