"""The product of linear layers, sample by sample, so that a sample's result is the same in every batch.

oneDNN divides and orders a matrix product by its number of rows, so a row's last bits depend on the others.
"""

from __future__ import annotations

from typing import Any

from medsegdiff.kernels import precision
from medsegdiff.runtime.backend import jt

Var = Any  # jt.Var
_HEADER = """
extern "C" int dnnl_sgemm(char, char, long, long, long, float, const float*, long, const float*, long, float,
                          float*, long);
"""

# in0 is x (N, R, K), in1 the weight (O, K), out0 the result (N, R, O).
_FORWARD = """
const long R = in0_shape1, K = in0_shape2, O = in1_shape0;
for (long n = 0; n < in0_shape0; n++)
    dnnl_sgemm('N', 'T', R, O, K, 1, in0_p + n * R * K, K, in1_p, K, 0, out0_p + n * R * O, O);
"""


class _Linear(jt.Function):
    def execute(self, x: Var, weight: Var) -> Var:
        self.saved = x, weight
        shape = [*x.shape[:2], weight.shape[0]]
        return jt.code(shape, x.dtype, [x, weight], cpu_header=_HEADER, cpu_src=_FORWARD)

    def grad(self, grad: Var) -> tuple[Var, Var]:
        x, weight = self.saved
        pull = grad.reshape(-1, weight.shape[0])
        dx = jt.matmul(pull, weight).reshape(x.shape)
        return dx, jt.matmul(pull.transpose(1, 0), x.reshape(-1, weight.shape[1]))


def linear(x: Var, weight: Var) -> Var:
    """`x` (N, ..., K) times the transpose of `weight` (O, K): (N, ..., O), float32.

    On the CPU in float32 inside too, being small; on a GPU in `precision.current()`.
    """
    if jt.flags.use_cuda:
        return linear_reference(x, weight)
    return _Linear()(x.reshape(x.shape[0], -1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[0])


def linear_reference(x: Var, weight: Var) -> Var:
    """`linear` as a plain Jittor expression."""
    rows = x.reshape(-1, x.shape[-1])
    return precision.narrowed(jt.matmul, rows, weight.transpose(1, 0)).reshape(*x.shape[:-1], weight.shape[0])
