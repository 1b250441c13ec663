"""The neural band-pass filter in inference: one operation, where its layers are some twenty small ones."""

from __future__ import annotations

from collections.abc import Sequence

from medsegdiff.kernels.cpu.convolution import GEOMETRY, HEADER, geometry_of, run_code
from medsegdiff.kernels.cpu.sources import text
from medsegdiff.runtime.backend import Var

_HEADER = f"{HEADER}\n{text('band_pass.h')}"
# in0 is the modulation, then come each layer's weight and bias.
_SOURCE = GEOMETRY + "convolution::band_pass(g, {%s}, in0_p, in0_shape0, out0_p);"


def band_pass(modulation: Var, layers: Sequence[tuple[Var, Var]], tokens: int) -> Var:
    """As in `operations`."""
    hidden, _, kernel, _ = layers[1][0].shape
    geometry = geometry_of((1, hidden, tokens, tokens), hidden, kernel, 1, kernel // 2, low=False)
    source = _SOURCE % ", ".join(f"{{in{i}_p, in{i + 1}_p}}" for i in range(1, 2 * len(layers), 2))
    given = [modulation, *(value for layer in layers for value in layer)]
    return run_code([[modulation.shape[0], 1, tokens, tokens]], given, source, geometry, _HEADER)[0]
