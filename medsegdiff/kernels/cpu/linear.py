"""Linear layers, sample by sample, so that a sample's result is the same in every batch.

oneDNN divides and orders a matrix product by its number of rows, so a row's last bits depend on the others.
"""

from __future__ import annotations

from typing import Optional

from medsegdiff.kernels.cpu.sources import text
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

MATRIX_PRODUCT = """
extern "C" int dnnl_sgemm(char, char, long, long, long, float, const float*, long, const float*, long, float,
                          float*, long);
"""
"""oneDNN's, declared for a kernel's header; its matrices lie row by row."""
_HEADER = f"#include <algorithm>\n#include <omp.h>\n{MATRIX_PRODUCT}\n{text('lanes.h')}"

# in0 is x (N, R, K), in1 the weight (O, K), `bias` null or (O), out0 the result (N, R, O). Of single rows the weight is
# the larger part: it is read once.
_FORWARD = """
const long N = in0_shape0, R = in0_shape1, K = in0_shape2, O = in1_shape0;
const float* bias = {bias};
if (R == 1) {{
    #pragma omp parallel for
    for (long o = 0; o < O; o++)
        for (long n = 0; n < N; n++)
            out0_p[n * O + o] = dot(in0_p + n * K, in1_p + o * K, K) + (bias ? bias[o] : 0);
    return;
}}
if (bias) for (long row = 0; row < N * R; row++) std::copy_n(bias, O, out0_p + row * O);
for (long n = 0; n < N; n++)
    dnnl_sgemm('N', 'T', R, O, K, 1, in0_p + n * R * K, K, in1_p, K, bias ? 1 : 0, out0_p + n * R * O, O);
"""


class _Linear(Function):
    def execute(self, x: Var, weight: Var, *bias: Var) -> Var:
        self.save(x, weight)
        self.biased = bool(bias)
        shape = [*x.shape[:2], weight.shape[0]]
        source = _FORWARD.format(bias="in2_p" if bias else "nullptr")
        return jt.code(shape, x.dtype, [x, weight, *bias], cpu_header=_HEADER, cpu_src=source)

    def grad(self, grad: Var) -> list[Var]:
        x, weight = self.saved()
        pull = grad.reshape(-1, weight.shape[0])
        dx = jt.matmul(pull, weight).reshape(x.shape)
        gradients = [dx, jt.matmul(pull.transpose(1, 0), x.reshape(-1, weight.shape[1]))]
        return [*gradients, pull.sum(dim=0)] if self.biased else gradients


def linear(x: Var, weight: Var, bias: Optional[Var] = None) -> Var:
    """As in `operations`."""
    given = [x.reshape(x.shape[0], -1, x.shape[-1]), weight, *([] if bias is None else [bias])]
    return _Linear()(*given).reshape(*x.shape[:-1], weight.shape[0])
