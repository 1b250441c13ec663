"""One step of AdamW for one parameter, and the length of many arrays, in single threaded passes over memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
_HEADER = "#include <cmath>\n#include <omp.h>\n#include <algorithm>\n#include <vector>"
_STEP = """
const float scale = data["scale"], keep = data["keep"], rate = data["rate"], correction = data["correction"];
const float beta1 = data["beta1"], beta2 = data["beta2"], eps = data["eps"];
#pragma omp parallel for simd if (in0->num > 16384)
for (long i = 0; i < (long)in0->num; i++) {
    const float g = in1_p[i] * scale;
    const float mean = out1_p[i] = beta1 * in2_p[i] + (1 - beta1) * g;
    const float square = out2_p[i] = beta2 * in3_p[i] + (1 - beta2) * g * g;
    out0_p[i] = in0_p[i] * keep - rate * mean / (std::sqrt(square) * correction + eps);
}
"""

# Blocks have sums of their own, which are added in order: the result does not depend on the number of threads.
_SQUARES = """
const long count = in0->num, block = 1 << 14, blocks = (count + block - 1) / block;
std::vector<double> sums(blocks);
#pragma omp parallel for if (blocks > 1)
for (long b = 0; b < blocks; b++) {
    const long end = std::min((b + 1) * block, count);
    for (long start = b * block; start < end; start += 1024) {
        float part = 0;
        for (long i = start; i < std::min(start + 1024, end); i++) part += in0_p[i] * in0_p[i];
        sums[b] += part;
    }
}
double total = 0;
for (double sum : sums) total += sum;
out0_p[0] = total;
"""


class Step(NamedTuple):
    """The numbers of an AdamW step, which is the same for every parameter but for what decays."""

    scale: float
    """What gradients are multiplied by."""
    keep: float
    """What the parameter is multiplied by: 1 - learning rate * decay."""
    rate: float
    """Learning rate over 1 - beta1^t."""
    correction: float
    """1 / sqrt(1 - beta2^t)."""
    beta1: float
    beta2: float
    eps: float


def adamw(parameter: Var, gradient: Var, mean: Var, square: Var, step: Step) -> tuple[Var, Var, Var]:
    """The parameter and both moments after a step (Loshchilov & Hutter 2019); all of one shape, float32."""
    if jt.flags.use_cuda:
        return adamw_reference(parameter, gradient, mean, square, step)
    given = [parameter, gradient, mean, square]
    shapes, kinds = [parameter.shape] * 3, [parameter.dtype] * 3
    data = {name: float(value) for name, value in step._asdict().items()}
    return tuple(jt.code(shapes, kinds, given, cpu_header=_HEADER, cpu_src=_STEP, data=data))


def adamw_reference(parameter: Var, gradient: Var, mean: Var, square: Var, step: Step) -> tuple[Var, Var, Var]:
    """`adamw` as a plain Jittor expression."""
    # As arrays: a new number in the expression itself would be compiled anew.
    scale, keep, rate, correction = (jt.array(np.float32([value])) for value in step[:4])
    gradient = gradient * scale
    mean = step.beta1 * mean + (1 - step.beta1) * gradient
    square = step.beta2 * square + (1 - step.beta2) * gradient * gradient
    moved = rate * mean / (jt.sqrt(square) * correction + step.eps)
    return parameter * keep - moved, mean, square


def sum_of_squares(value: Var) -> Var:
    """The sum of the squares of a float32 array, float64 (1,)."""
    if jt.flags.use_cuda:
        return (value.float64() * value).sum().reshape(1)
    return jt.code((1,), "float64", [value], cpu_header=_HEADER, cpu_src=_SQUARES)
