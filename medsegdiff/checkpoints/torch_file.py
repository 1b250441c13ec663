"""Weights from PyTorch's `.pt` files (zip and legacy) and Jittor's `.pkl`, without PyTorch.

Nothing in the file is executed (`pickled`) and nothing is unpacked onto the disk; the weights take at most eight times
the file's bytes. Formats: torch/serialization.py of PyTorch, `safepickle` and save_pytorch.py of Jittor.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Union

import numpy as np
from numpy.lib.stride_tricks import as_strided

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import reading
from medsegdiff.checkpoints.described import Array, Refused, Storage, Tensor, only
from medsegdiff.checkpoints.pickled import read

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar")  # the last of .pth.tar
_LEGACY = 0x1950A86A20F9469CFC6C
_MOST_PICKLE = 1 << 26  # bytes of a zip file's list of tensors; that of ten thousand takes two million
_KINDS = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_ARRAY_KINDS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"}
# What files that hold more than the weights call them.
_AVERAGED = ("ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema")
_RAW = ("state_dict", "model_state_dict", "model", "net", "network")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile
Value = Union[Tensor, Array]
Content = Callable[[Storage], bytes]
"""The bytes of a storage."""


def read_weights(path: Path, which: str = "ema") -> dict[str, np.ndarray]:
    """The weights in a file by their names, contiguous, in the precision that they were saved in (bfloat16: float32).

    Args:
        path: written by `torch.save` or `jittor.save`
        which: "ema" or "model": which ones, where the file holds both averaged and raw weights

    Raises:
        InputError: it is damaged, holds no weights, or asks for anything else than tensors, arrays and plain values.
    """
    try:
        with reading(path) as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                return _read_zip(file, which)
            if start[:1] == b"\x80":
                return _read_pickles(file, which)
            raise ValueError("no known beginning")
    except InputError:
        raise
    except Refused as error:
        raise InputError(
            f"{path}: refused, it holds {ascii(str(error)[:80])[1:-1]}; nothing of it was executed; where you trust "
            "it, save its weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # what zip files, pickles and NumPy raise has no common base
        raise InputError(
            f"{path}: damaged, or no file of weights by PyTorch or Jittor ({type(error).__name__}); copy it anew"
        ) from None


def _read_zip(file: IO[bytes], which: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        (main,) = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
        folder = main.partition("/")[0]

        def open_part(name: str) -> IO[bytes]:
            # PyTorch packs without compressing; what is compressed may unfold to any size.
            if entries[name].compress_type != zipfile.ZIP_STORED:
                raise Refused("a compressed part")
            return archive.open(name)

        def content(storage: Storage) -> bytes:
            with open_part(f"{folder}/data/{storage.key}") as part:
                return part.read()

        if entries[main].file_size > _MOST_PICKLE:
            raise Refused("a list of tensors of more than 64 MB")
        with open_part(main) as part:
            tree = read(part)
        order = "<"
        if f"{folder}/byteorder" in entries:
            with open_part(f"{folder}/byteorder") as part:
                order = ">" if part.read(8) == b"big" else "<"
        return _arrays(file, _select(tree, which), content, order)


def _read_pickles(file: IO[bytes], which: str) -> dict[str, np.ndarray]:
    """Jittor's one pickle, or PyTorch's legacy five with the numbers behind them."""
    tree = read(file)
    if tree != _LEGACY:
        return _arrays(file, _select(tree, which), _nowhere, "<")
    read(file)  # the protocol's version
    byte_order = "little" if read(file)["little_endian"] else "big"
    storages: dict[str, Storage] = {}
    tree, places = read(file, storages), {}
    for key in read(file):
        length = int.from_bytes(file.read(8), byte_order) * np.dtype(_kind(storages[only(key, str)])).itemsize
        places[key] = file.tell(), length
        file.seek(length, os.SEEK_CUR)

    def content(storage: Storage) -> bytes:
        position, length = places[storage.key]
        file.seek(position)
        return file.read(length)

    return _arrays(file, _select(tree, which), content, "<" if byte_order == "little" else ">")


def _nowhere(storage: Storage) -> bytes:
    raise Refused("a tensor whose numbers are elsewhere")


def _select(tree: Any, which: str) -> dict[str, Value]:
    """The weights in what a file says: one of its entries, or the whole."""
    if not isinstance(tree, dict):
        raise Refused(f"a {type(tree).__name__}, not weights by name")
    known = (*_AVERAGED, *_RAW) if which == "ema" else (*_RAW, *_AVERAGED)
    candidates = [*(tree.get(name) for name in known), tree, *tree.values()]
    for found in candidates:
        if isinstance(found, dict):
            values = {name: value for name, value in found.items() if isinstance(value, (Tensor, Array))}
            if values and 2 * len(values) >= len(found) and all(isinstance(name, str) for name in values):
                return _without_prefixes(values)
    raise Refused("the state of an optimiser, not weights" if "param_groups" in tree else "no weights by name")


def _without_prefixes(values: Mapping[str, Value]) -> dict[str, Value]:
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in values):
            values = {name[len(prefix) :]: value for name, value in values.items()}
    return dict(values)


def _arrays(file: IO[bytes], values: Mapping[str, Value], content: Content, order: str) -> dict[str, np.ndarray]:
    """The arrays of `values`: together at most as many numbers as `file` has bytes, and those of `content` as bytes."""
    sizes, limit = [value.size for value in values.values()], file.seek(0, os.SEEK_END)
    if any(length < 0 for size in sizes for length in size) or sum(map(math.prod, sizes)) > limit:
        raise Refused("more numbers than bytes")
    held: dict[str, bytes] = {}
    found, left = {}, limit
    for name, value in values.items():
        if isinstance(value, Array):
            found[name] = _from_array(value)
            continue
        if value.storage.key not in held:
            held[value.storage.key] = content(value.storage)
            left -= len(held[value.storage.key])
            if left < 0:
                raise Refused("parts that overlap")
        found[name] = _from_tensor(value, held[value.storage.key], order)
    return found


def _kind(storage: Storage) -> str:
    if storage.kind not in _KINDS:
        raise Refused(f"numbers of the kind {storage.kind}")
    return _KINDS[storage.kind]


def _from_tensor(tensor: Tensor, content: bytes, order: str) -> np.ndarray:
    numbers = np.frombuffer(content, f"{order}{_kind(tensor.storage)}")
    if math.prod(tensor.size) == 0:
        numbers = np.empty(tensor.size, numbers.dtype)
    else:
        last = tensor.offset + sum((length - 1) * step for length, step in zip(tensor.size, tensor.stride))
        if len(tensor.size) != len(tensor.stride) or min((tensor.offset, *tensor.stride)) < 0 or last >= len(numbers):
            raise ValueError("beyond its storage")
        steps = [step * numbers.itemsize for step in tensor.stride]
        numbers = as_strided(numbers[tensor.offset :], tensor.size, steps, writeable=False)
    if tensor.storage.kind == "BFloat16Storage":
        return (numbers.astype("u4", order="C") << 16).view("f4")
    return np.array(numbers, numbers.dtype.newbyteorder("="), order="C")


def _from_array(array: Array) -> np.ndarray:
    if array.kind is None or array.kind.name not in _ARRAY_KINDS or array.kind.order not in ("<", ">", "=", "|"):
        raise Refused("an array that holds no numbers")
    numbers = np.frombuffer(array.content, np.dtype(array.kind.name).newbyteorder(array.kind.order))
    shaped = numbers.reshape(array.size, order="F" if array.fortran else "C")
    return np.array(shaped, shaped.dtype.newbyteorder("="), order="C")
