"""The operations on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medsegdiff.kernels.cpu import update
from medsegdiff.kernels.cpu.attention import attention
from medsegdiff.kernels.cpu.band_pass import band_pass
from medsegdiff.kernels.cpu.blur import blur
from medsegdiff.kernels.cpu.channels import channel_map, channel_sums
from medsegdiff.kernels.cpu.convolution import conv2d
from medsegdiff.kernels.cpu.linear import linear
from medsegdiff.kernels.cpu.maps import join, upsample_nearest
from medsegdiff.kernels.cpu.normalisation import batch_norm, group_norm
from medsegdiff.kernels.cpu.product import mixed, product
from medsegdiff.kernels.cpu.spectrum import spectral_attention
from medsegdiff.kernels.reference import Step
from medsegdiff.runtime.backend import Var, jt

NAME = "cpu"
PACKS = True
BY_SAMPLE = True


def adamw(
    parameters: Sequence[Var], gradients: Sequence[Var], means: Sequence[Var], squares: Sequence[Var], step: Step
) -> None:
    """As in `operations`."""
    for arrays in zip(parameters, gradients, means, squares):
        update.adamw(*arrays, step)


def approach(averages: Sequence[Var], values: Sequence[Var], share: float) -> None:
    """As in `operations`."""
    for average, value in zip(averages, values):
        update.approach(average, value, share)


def sum_of_squares(values: Sequence[Var]) -> Var:
    """As in `operations`."""
    return jt.concat([update.sum_of_squares(value) for value in values]).sum().reshape(1)
