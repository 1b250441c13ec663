"""Attention of maps by their spectra, of small matrices: one thread computes a head of a sample from end to end."""

from __future__ import annotations

from typing import Any, Optional

from medsegdiff.kernels.cpu.linear import MATRIX_PRODUCT
from medsegdiff.kernels.cpu.sources import text
from medsegdiff.kernels.function import Function
from medsegdiff.runtime.backend import Var, jt

_HEADER = f"#include <omp.h>\n{MATRIX_PRODUCT}\n{text('lanes.h', 'spectrum.h')}"

# in0 is the query, in1 the key (N, heads D, 2 T), in2 the value (N, heads V, T), in3 the gain, if any.
_HEADS = """
const long heads = (long)data["heads"], D = in0_shape1 / heads, V = in2_shape1 / heads, T = in2_shape2;
const long height = (long)data["height"];
const bool softmax = data["softmax"] != 0;
const long rows = {rows};  // of the gain
#pragma omp parallel
{{
    spectrum::Head head(D, V, height, T / height, softmax);
    #pragma omp for
    for (long i = 0; i < in0_shape0 * heads; i++) {{
        const long wide = i * D * 2 * T, narrow = i * V * T;
        const float* gain = rows ? {gain} + i / heads % rows * T * T : nullptr;
        {compute}
    }}
}}
"""
_FORWARD = "head.forward(in0_p + wide, in1_p + wide, in2_p + narrow, gain, out0_p + narrow);"
_BACKWARD = """
head.backward(in0_p + wide, in1_p + wide, in2_p + narrow, gain, {grad} + narrow, out0_p + wide, out1_p + wide,
              out2_p + narrow, {dgain});
"""


class _SpectralAttention(Function):
    def __init__(self, size: tuple[int, int], heads: int, softmax: bool) -> None:
        self.data = {"heads": float(heads), "height": float(size[0]), "softmax": float(softmax)}

    def execute(self, query: Var, key: Var, value: Var, *gain: Var) -> Var:
        self.save(query, key, value, *gain)
        return self._code([value.shape], [query, key, value, *gain], bool(gain), _FORWARD)[0]

    def grad(self, grad: Var) -> list[Var]:
        query, key, value, *gain = self.saved()
        heads, places = int(self.data["heads"]), value.shape[2]
        shapes = [query.shape, key.shape, value.shape]
        if not gain:
            source = _BACKWARD.format(grad="in3_p", dgain="nullptr")
            return self._code(shapes, [query, key, value, grad], False, source)
        source = _BACKWARD.format(grad="in4_p", dgain="out3_p + i * T * T")
        shapes.append([query.shape[0], heads, places, places])
        *gradients, of_heads = self._code(shapes, [query, key, value, *gain, grad], True, source)
        of_gain = of_heads.sum(dim=1, keepdims=True)
        return [*gradients, of_gain if gain[0].shape[0] > 1 else of_gain.sum(dim=0, keepdims=True)]

    def _code(self, shapes: list[Any], inputs: list[Var], gained: bool, compute: str) -> list[Var]:
        source = _HEADS.format(
            rows="in3_shape0" if gained else "0", gain="in3_p" if gained else "(float*)nullptr", compute=compute
        )
        kinds = ["float32"] * len(shapes)
        return jt.code(shapes, kinds, inputs, cpu_header=_HEADER, cpu_src=source, data=self.data)


def spectral_attention(
    query: Var,
    key: Var,
    value: Var,
    size: tuple[int, int],
    heads: int,
    gain: Optional[Var] = None,
    softmax: bool = False,
) -> Var:
    """As in `operations`."""
    return _SpectralAttention(size, heads, softmax)(query, key, value, *([] if gain is None else [gain]))
