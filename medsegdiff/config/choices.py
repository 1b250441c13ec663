"""What several sections of options choose from."""

from __future__ import annotations

PRECISIONS = ("fp32", "bf16", "fp16")
