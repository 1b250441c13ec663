"""What a pickle of weights may describe: tensors, storages and NumPy arrays, and the calls that make them.

A value may hold another twice, which holds a third twice, and so on: in a few hundred bytes more than can be compared,
hashed or written down. So nothing of the kind is done to a value before it is known to be text or a number (`only`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

_MOST_AXES, _MOST_LENGTH = 32, 1 << 48


class Refused(Exception):
    """What a pickle asks for and will not get; the message names it."""


class Tensor(NamedTuple):
    """A view of a storage of the file."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file."""

    kind: str
    """As "FloatStorage"."""
    key: str
    count: int


@dataclass
class Array:
    """A NumPy array."""

    size: tuple[int, ...] = ()
    kind: Optional[Kind] = None
    fortran: bool = False
    content: bytes = b""


@dataclass
class Kind:
    """The type of an array's numbers."""

    name: str
    """As "f4"."""
    order: str = "="


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    name: str


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Tensor:
    if any(part is not None for part in more[2:]):  # after whether it has a gradient, and hooks
        raise Refused("a tensor whose signs are still to be changed")
    return Tensor(only(storage, Storage), only(offset, int), integers(size), integers(stride))


def _text_as_bytes(text: Any, encoding: Any) -> bytes:
    if only(encoding, str) != "latin1":  # the one by which protocol 2 writes bytes
        raise Refused(f"the encoding {encoding}")
    return only(text, str).encode("latin1")


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *pairs: {only(key, str): value for key, value in (pairs[0] if pairs else ())},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: only(data, Tensor),
    "torch.Size": lambda size: integers(size),
    "numpy.dtype": lambda name, *_: Kind(only(name, str)),
    "_codecs.encode": _text_as_bytes,
    "jittor.jittor_core.Var": lambda array: only(array, Array),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1 and 2
    CALLS[f"{_module}._reconstruct"] = lambda *_: Array()
    CALLS[f"{_module}.scalar"] = lambda kind, content: Array((), only(kind, Kind), False, only(content, bytes))
_MARKS = {"numpy.ndarray"}  # named, never called


def only(value: Any, kind: type) -> Any:
    """`value`, if it is of this very type.

    Raises:
        Refused: it is not.
    """
    if type(value) is not kind:
        raise Refused(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def integers(values: Any) -> tuple[int, ...]:
    """`values` as a tensor's size or steps.

    Raises:
        Refused: one is no integer, or there are more or larger ones than a tensor has.
    """
    if len(values) > _MOST_AXES or any(abs(only(value, int)) > _MOST_LENGTH for value in values):
        raise Refused("a tensor of more axes or longer ones than there are")  # their product may take for ever
    return tuple(values)


def is_known(name: str) -> bool:
    """Whether files of weights need the class or function of this name."""
    return name in CALLS or name in _MARKS or (name.startswith("torch.") and name.endswith("Storage"))
