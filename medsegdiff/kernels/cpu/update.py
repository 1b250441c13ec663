"""Updates of a training's arrays, and the norm of an array: on a CPU, one threaded pass over memory each.

Updates are in place: what is held for hours would else be strewn among what lives for a step, and memory fall to
pieces. They take subnormal numbers for zero in each thread, so that what is held does not depend on what threads were
told before: a second moment is the square of a gradient, and often as small.
"""

from __future__ import annotations

from collections.abc import Sequence

from medsegdiff.kernels.cpu.sources import text
from medsegdiff.kernels.reference import Step
from medsegdiff.runtime.backend import Var, jt

_HEADER = f"#include <omp.h>\n#include <vector>\n{text('numbers.h')}"


def _threaded(numbers: str, formula: str) -> str:
    """The source of `formula` for each index i of in0, after the definition of the `numbers` in it."""
    return f"""
{numbers}
#pragma omp parallel if (in0->num > 16384)
{{
    const numbers::Flushed flushed;
    #pragma omp for simd
    for (long i = 0; i < (long)in0->num; i++) {{
{formula}
    }}
}}
"""


# in0 is the gradient. The parameter, its mean and square are overwritten: out0 to out2 are in1 to in3, which are
# therefore not read.
_STEP = _threaded(
    """
const float scale = data["scale"], keep = data["keep"], rate = data["rate"], correction = data["correction"];
const float beta1 = data["beta1"], beta2 = data["beta2"], eps = data["eps"];
const float rest1 = 1 - data["beta1"], rest2 = 1 - data["beta2"];  // in float64: of float32, four digits would be left
""",
    """
const float g = in0_p[i] * scale;
const float mean = out1_p[i] = beta1 * out1_p[i] + rest1 * g;
const float square = out2_p[i] = beta2 * out2_p[i] + rest2 * g * g;
out0_p[i] = out0_p[i] * keep - rate * mean / (std::sqrt(square) * correction + eps);
""",
)

_APPROACH = _threaded('const float share = data["share"];', "out0_p[i] += share * (in0_p[i] - out0_p[i]);")

# Blocks have sums of their own, which are added in order: the result does not depend on the number of threads.
_SQUARES = """
const long count = in0->num, block = 1 << 14, blocks = (count + block - 1) / block;
std::vector<double> sums(blocks);
#pragma omp parallel for if (blocks > 1)
for (long b = 0; b < blocks; b++) {
    const long end = std::min((b + 1) * block, count);
    double sum = 0;  // of float32 a square is infinite from 2e19, and zero below 1e-23
    for (long i = b * block; i < end; i++) sum += (double)in0_p[i] * in0_p[i];
    sums[b] = sum;
}
double total = 0;
for (double sum : sums) total += sum;
out0_p[0] = total;
"""


def _overwrite(given: Var, held: list[Var], source: str, data: dict[str, float]) -> None:
    """Run `source` on `given`, with `held` as its results, which keep their memory."""
    with jt.no_grad():
        # Also inputs, or Jittor may free them before their memory is handed on.
        jt.code([given, *held], held, cpu_header=_HEADER, cpu_src=source, data=data)


def adamw(
    parameters: Sequence[Var], gradients: Sequence[Var], means: Sequence[Var], squares: Sequence[Var], step: Step
) -> None:
    """As in `operations`."""
    data = {name: float(value) for name, value in step._asdict().items()}
    for parameter, gradient, *moments in zip(parameters, gradients, means, squares):
        _overwrite(gradient, [parameter, *moments], _STEP, data)
        parameter.start_grad()


def approach(averages: Sequence[Var], values: Sequence[Var], share: float) -> None:
    """As in `operations`."""
    for average, value in zip(averages, values):
        _overwrite(value, [average], _APPROACH, {"share": float(share)})


def sum_of_squares(values: Sequence[Var]) -> Var:
    """As in `operations`."""
    sums = [jt.code((1,), "float64", [value], cpu_header=_HEADER, cpu_src=_SQUARES) for value in values]
    return jt.concat(sums).sum().reshape(1)
