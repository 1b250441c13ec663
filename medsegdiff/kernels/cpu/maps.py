"""Maps (N, C, H, W) that are only copied: concatenated and upsampled, by all threads."""

from __future__ import annotations

from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = "#include <cstring>\n#include <omp.h>"

# The channels of two maps and those of the joined one, in either direction.
_JOIN = """
const long N = {whole}_shape0, C = {whole}_shape1, P = {whole}->num / (N * C), A = {first}_shape1;
#pragma omp parallel for collapse(2)
for (long n = 0; n < N; n++)
    for (long c = 0; c < C; c++) {{
        auto* part = c < A ? {first}_p + (n * A + c) * P : {second}_p + (n * (C - A) + c - A) * P;
        std::memcpy({to}, {from}, P * sizeof(float));
    }}
"""
_WHOLE = "{whole}_p + (n * C + c) * P"

_DOUBLE = """
const long W = in0_shape3, rows = in0->num / W;
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    const float* __restrict__ from = in0_p + i * W;
    float* __restrict__ to = out0_p + i * 4 * W;
    for (long j = 0; j < W; j++) to[2 * j] = to[2 * j + 1] = from[j];
    std::memcpy(to + 2 * W, to, 2 * W * sizeof(float));
}
"""
_HALVE = """
const long W = out0_shape3, rows = out0->num / W;
#pragma omp parallel for
for (long i = 0; i < rows; i++) {
    const float* __restrict__ from = in0_p + i * 4 * W;
    const float* __restrict__ below = from + 2 * W;
    float* __restrict__ to = out0_p + i * W;
    for (long j = 0; j < W; j++) to[j] = from[2 * j] + from[2 * j + 1] + (below[2 * j] + below[2 * j + 1]);
}
"""


def _joining(whole: str, first: str, second: str, joins: bool) -> str:
    ends = [_WHOLE.format(whole=whole), "part"]
    to, from_ = ends if joins else reversed(ends)
    return _JOIN.format(whole=whole, first=first, second=second, to=to, **{"from": from_})


class _Join(Function):
    def execute(self, a: Var, b: Var) -> Var:
        self.shapes = [a.shape, b.shape]
        shape = [a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]]
        return jt.code(shape, a.dtype, [a, b], cpu_header=_HEADER, cpu_src=_joining("out0", "in0", "in1", True))

    def grad(self, grad: Var) -> list[Var]:
        source = _joining("in0", "out0", "out1", False)
        return jt.code(self.shapes, [grad.dtype] * 2, [grad], cpu_header=_HEADER, cpu_src=source)


class _Double(Function):
    def execute(self, x: Var) -> Var:
        n, c, h, w = x.shape
        return jt.code([n, c, 2 * h, 2 * w], x.dtype, [x], cpu_header=_HEADER, cpu_src=_DOUBLE)

    def grad(self, grad: Var) -> Var:
        n, c, h, w = grad.shape
        return jt.code([n, c, h // 2, w // 2], grad.dtype, [grad], cpu_header=_HEADER, cpu_src=_HALVE)


def join(a: Var, b: Var) -> Var:
    """As in `operations`."""
    return _Join()(a, b)


def upsample_nearest(x: Var) -> Var:
    """As in `operations`."""
    return _Double()(x)
