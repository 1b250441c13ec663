"""What tests want of the processor, or of what the environment leaves of it."""

import pytest

from medsegdiff.kernels import precision
from medsegdiff.runtime import machine

_MISSING = precision.missing_on_cpu("bf16", machine.cpu())
needs_bf16 = pytest.mark.skipif(bool(_MISSING), reason=f"bf16: {_MISSING}")
BF16 = pytest.param("bf16", marks=needs_bf16)
