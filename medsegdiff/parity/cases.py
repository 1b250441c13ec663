"""Parity cases: stored numbers, and the inputs that are functions of names."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.config.network import NetworkConfig, published_version
from medsegdiff.config.run import pick
from medsegdiff.diffusion.process import DiffusionConfig


def stream(name: str) -> np.random.Generator:
    """The random stream of a name: PCG64 seeded by its CRC-32."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def normal(name: str, shape: Iterable[int]) -> np.ndarray:
    """Standard normal float32 of `shape`, a function of `name`."""
    return stream(name).standard_normal(tuple(shape)).astype(np.float32)


def parameter(name: str, shape: Iterable[int]) -> np.ndarray:
    """The value of the parameter or buffer `name` in every case."""
    shape = tuple(shape)
    if name.endswith("running_var"):
        return (0.5 + stream(name).random(shape)).astype(np.float32)
    draw = normal(name, shape)
    if name.endswith("complex_weight"):
        return draw
    if len(shape) >= 2:
        # In float64, as NumPy 2 divides by a float64 scalar; NumPy 1 divides in float32, and differs in the last bit.
        return (draw.astype(np.float64) / np.sqrt(math.prod(shape[1:]))).astype(np.float32)
    return (0.1 * draw + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One stored case."""

    name: str
    kind: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def config(self) -> dict[str, Any]:
        """The published options."""
        return self.meta["config"]

    @property
    def network(self) -> NetworkConfig:
        """The network's options."""
        options = {**self.config, "version": published_version(self.config["version"])}
        return dataclasses.replace(pick(NetworkConfig, options), image_channels=self.config["in_ch"] - 1, dropout=0.0)

    @property
    def diffusion(self) -> DiffusionConfig:
        """The diffusion's options."""
        return pick(DiffusionConfig, self.config)

    @property
    def respacing(self) -> str:
        """The steps that a sampler visits."""
        return self.meta.get("respacing", self.config["timestep_respacing"])

    @property
    def mask_shape(self) -> tuple[int, int, int, int]:
        """Shape of a batch of masks."""
        size = self.config["image_size"]
        return (self.meta["batch"], 1, size, size)

    def image(self) -> np.ndarray:
        """The batch of images."""
        size = self.config["image_size"]
        shape = (self.meta["batch"], self.config["in_ch"] - 1, size, size)
        return stream(f"{self.name}:image").random(shape).astype(np.float32)

    def noise(self, draw: int) -> np.ndarray:
        """Draw k of the case's noise."""
        return normal(f"{self.name}:noise{draw}", self.mask_shape)

    def ellipses(self) -> np.ndarray:
        """The masks of training cases."""
        count, _, size, _ = self.mask_shape
        rng = stream(f"{self.name}:mask")
        y, x = np.mgrid[:size, :size]
        masks = []
        for _ in range(count):
            cy, cx = rng.uniform(0.3, 0.7, 2) * size
            ry, rx = rng.uniform(0.15, 0.35, 2) * size
            masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
        return np.array(masks, np.float32)[:, None]


def find(paths: Iterable[Path]) -> list[Path]:
    """The case files below `paths`, which are files or folders.

    Raises:
        InputError: a path is missing, or a folder holds no case.
    """
    found = []
    for path in paths:
        files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not path.exists():
            raise InputError(f"{path}: no such parity case; give a .npz file or a folder of them")
        if not files:
            raise InputError(f"{path}: holds no parity case (.npz)")
        found += [file for file in files if file not in found]
    return found


def load(path: Path) -> Case:
    """Read a case.

    Raises:
        InputError: it is damaged or not a case.
    """
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        meta = json.loads(str(arrays.pop("meta")))
        return Case(path.stem, meta["kind"], meta, arrays)
    except Exception as error:  # what zip files, NumPy and JSON raise has no common base
        raise InputError(f"{path}: damaged or not a parity case ({type(error).__name__}); copy it anew") from None
