"""What several sections of options choose from."""

from __future__ import annotations

from typing import Literal, get_args, get_origin, get_type_hints

from medsegdiff.base.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def check_choices(config: object) -> None:
    """Check that each field of a dataclass whose type is a `Literal` has one of its values.

    Raises:
        InputError: one has not.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            known = ", ".join(filter(None, get_args(kind)))
            raise InputError(f"`{name}` {value}: must be one of {known}")
