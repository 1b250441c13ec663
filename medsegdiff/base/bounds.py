"""What an option may be, said where it is declared: the type of a dataclass's field, and its bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medsegdiff.base.errors import InputError

MOST = 10**9  # of what costs nothing itself, such as steps
SEEDS = (0, 2**63 - 1)  # others take -1 for a seed that differs each time, which none of ours does
_KINDS: dict[Any, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "Optional[int]": ((int, type(None)), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text; in YAML put it in quotes"),
}


def bounded(default: Any, least: float, most: float) -> Any:
    """A dataclass's field whose number is from `least` to `most`."""
    return dataclasses.field(default=default, metadata={"bounds": (least, most)})


def check_fields(section: Any) -> None:
    """Check a dataclass's fields: the types of plain ones, the choices of `Literal`s, the bounds of `bounded` ones.

    A number of NumPy's becomes Python's, which JSON knows.

    Raises:
        InputError: a value is of another type, none of the choices, or out of bounds.
    """
    types = get_type_hints(type(section))
    for f in dataclasses.fields(section):
        value, option = getattr(section, f.name), f"`{f.name}`"
        if getattr(value, "shape", None) == ():
            value = value.item()
            object.__setattr__(section, f.name, value)  # it is frozen
        choices = get_args(types[f.name]) if get_origin(types[f.name]) is Literal else ()
        if choices:
            check_choice(option, value, choices)
        kind, words = _KINDS.get(f.type, (object, ""))
        if not isinstance(value, kind) or (isinstance(value, bool) and f.type in ("int", "Optional[int]", "float")):
            raise InputError(f"{option} {str(value)[:40]}: must be {words}")
        if "bounds" in f.metadata and value is not None:
            check_bounds(option, value, *f.metadata["bounds"])


def check_choice(option: str, value: Any, choices: Sequence[str]) -> None:
    """Check that what is given as `option` is one of the choices.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{option} {str(value)[:40]}: must be one of {', '.join(filter(None, choices))}")


def check_bounds(option: str, value: float, least: float, most: float) -> None:
    """Check that the number given as `option` is from `least` to `most`.

    Raises:
        InputError: it is not.
    """
    if least <= value <= most:
        return
    if not -math.inf < value < math.inf:
        raise InputError(f"{option} {value}: must be finite")
    shown = value if abs(value) < 1e15 else "beyond 10^15"
    too_small = "must not be negative" if least == 0 else f"must be at least {least}"
    raise InputError(f"{option} {shown}: {too_small if value < least else f'must be at most {most}'}")
