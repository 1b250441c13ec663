"""Maps blurred along one axis, each channel by weights of its own; sums are float64."""

from __future__ import annotations

from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = "#include <algorithm>\n#include <omp.h>\n#include <vector>"

# in0 is x (N, C, H, W), in1 the weights (C, taps). A plane is lines of numbers, in which `step` leads along the axis.
_PLANES = """
const long C = in0_shape1, P = in0_shape2 * in0_shape3, taps = in1_shape1;
const long step = data["axis"] == 2 ? in0_shape3 : 1, length = data["axis"] == 2 ? P : in0_shape3;
#pragma omp parallel for
for (long plane = 0; plane < in0_shape0 * C; plane++) {
    const float* weights = in1_p + plane % C * taps;
    std::vector<double> sums(length);
    for (long line = plane * P; line < (plane + 1) * P; line += length) {
        std::fill(sums.begin(), sums.end(), 0);
        for (long tap = 0; tap < taps; tap++) {
            const long ahead = (tap - taps / 2) * step;
            const long begin = std::max(0L, -ahead), end = std::min(length, length - ahead);
"""
_FORWARD = (
    _PLANES
    + """
            const double weight = weights[tap];
            const float* __restrict__ x = in0_p + line + ahead;
            for (long e = begin; e < end; e++) sums[e] += weight * x[e];
        }
        for (long e = 0; e < length; e++) out0_p[line + e] = sums[e];
    }
}
"""
)
# in2 is the result's gradient, out0 that of x, out1 (N, C, taps) that of the weights, by sample.
_BACKWARD = (
    _PLANES
    + """
            const double weight = weights[tap];
            const float *x = in0_p + line + ahead, *dy = in2_p + line;
            double product = 0;
            for (long e = begin; e < end; e++) {
                product += (double)x[e] * dy[e];
                sums[e + ahead] += weight * dy[e];
            }
            double& of_weight = out1_p[plane * taps + tap];
            of_weight = line == plane * P ? product : of_weight + product;
        }
        for (long e = 0; e < length; e++) out0_p[line + e] = sums[e];
    }
}
"""
)


class _Blur(Function):
    def __init__(self, axis: int) -> None:
        self.data = {"axis": float(axis)}

    def execute(self, x: Var, weights: Var) -> Var:
        self.save(x, weights)
        return jt.code(x.shape, x.dtype, [x, weights], cpu_header=_HEADER, cpu_src=_FORWARD, data=self.data)

    def grad(self, grad: Var) -> tuple[Var, Var]:
        x, weights = self.saved()
        shapes, kinds = [x.shape, [x.shape[0], *weights.shape]], ["float32", "float64"]
        given = [x, weights, grad]
        dx, of_samples = jt.code(shapes, kinds, given, cpu_header=_HEADER, cpu_src=_BACKWARD, data=self.data)
        return dx, of_samples.sum(dim=0).float32()


def blur(x: Var, weights: Var, axis: int) -> Var:
    """As in `operations`."""
    return _Blur(axis)(x, weights)
