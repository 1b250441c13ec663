"""What processes that were started together tell each other; one alone has nothing to exchange.

All must exchange in the same order, or they wait for each other without end. Jittor, which carries it, is
imported by the first exchange and not before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from medsegdiff.base.ranks import count, rank

Var = Any  # jt.Var
_BUCKET = 2**23  # float32 values that are exchanged at once, 32 MiB


def _broadcast(array: np.ndarray, root: int = 0) -> None:
    """Overwrite a contiguous array with that of process `root`."""
    from medsegdiff.runtime.backend import jt

    jt.mpi.broadcast(array, root)


def tell(value: Any) -> Any:
    """What process 0 gives as `value`: anything that JSON can hold."""
    return value if count() == 1 else _told(value, 0)


def collect(value: Any) -> list[Any]:
    """What each process gives as `value`: anything that JSON can hold."""
    return [value] if count() == 1 else [_told(value, root) for root in range(count())]


def _told(value: Any, root: int) -> Any:
    text = json.dumps(value).encode() if rank() == root else b""
    length = np.array([len(text)], np.int64)
    _broadcast(length, root)
    content = np.frombuffer(text, np.uint8).copy() if rank() == root else np.empty(length[0], np.uint8)
    _broadcast(content, root)
    return json.loads(content.tobytes())


def gather(array: np.ndarray) -> np.ndarray:
    """The arrays of all processes, which have one shape and type, stacked: (processes, *shape)."""
    everybody = np.stack([array] * count())
    if count() > 1:
        for root in range(count()):
            _broadcast(everybody[root], root)
    return everybody


def take_over(values: Iterable[Var]) -> None:
    """Give `values`, float32, what they are in process 0."""
    if count() == 1:
        return
    from medsegdiff.runtime.backend import persistent

    for value in values:
        array = np.array(value.numpy(), copy=True)
        _broadcast(array)
        if rank():
            value.assign(persistent(array))


def total(value: Var) -> Var:
    """The sum of `value` over all processes; not to be differentiated through."""
    return value if count() == 1 else value.mpi_all_reduce("add")


def mean(values: Mapping[str, Var]) -> dict[str, Var]:
    """The means of `values`, float32, over all processes, exchanged in few large pieces."""
    if count() == 1:
        return dict(values)
    from medsegdiff.runtime.backend import jt

    found: dict[str, Var] = {}
    for names in _buckets(values):
        pieces = [values[name].reshape(-1) for name in names]
        flat = total(jt.concat(pieces)) / count()
        start = 0
        for name, piece in zip(names, pieces):
            found[name] = flat[start : start + piece.shape[0]].reshape(values[name].shape)
            start += piece.shape[0]
        # One piece after another: all processes must exchange them in the same order.
        jt.sync([found[name] for name in names])
    return found


def _buckets(values: Mapping[str, Var]) -> Iterator[list[str]]:
    """The names of `values` in groups that hold `_BUCKET` numbers together, or one value."""
    names: list[str] = []
    held = 0
    for name, value in values.items():
        if names and held + value.numel() > _BUCKET:
            yield names
            names, held = [], 0
        names.append(name)
        held += value.numel()
    if names:
        yield names
