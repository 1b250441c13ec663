"""`numbers.h`, for a kernel's header: subnormal numbers, and functions that do not overflow."""

from pathlib import Path

NUMBERS = Path(__file__).with_name("numbers.h").read_text(encoding="utf-8")
