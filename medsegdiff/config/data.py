"""The options of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from medsegdiff.base.bounds import check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.config.choices import check_choices

MaskResize = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they are prepared.

    Args:
        data_name: kind of dataset: isic
        data_dir: the dataset's folder
        mask_resize: how masks are resized: bilinear (then > 0, as published) or by the nearest pixel, as always with
            more than two classes
        augment: random flips, right-angle rotations and colour changes
        augment_strength: how much more augment does, from 0 (nothing) to 1: zoom, shift, small rotations, elastic
            deformation, hue, and larger colour changes
        augment_hair: share of the images over which augment draws hairs, from 0 to 1
        augment_stickers: share of the images that augment lays a coloured disc over, from an edge, from 0 to 1
        cache_dir: where resized images are kept; by default the user's cache folder
    """

    data_name: str = "isic"
    data_dir: str = ""
    mask_resize: MaskResize = "bilinear"
    augment: bool = False
    augment_strength: float = 0.0
    augment_hair: float = 0.0
    augment_stickers: float = 0.0
    cache_dir: Optional[str] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.data_name.lower() != "isic":
            raise InputError(f"--data-name {self.data_name}: unknown kind of dataset; known: isic")
        check_choices(self)
        for name in ("augment_strength", "augment_hair", "augment_stickers"):
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{option} {value}: must be from 0 to 1")
            if value and not self.augment:
                raise InputError(f"{option} {value}: has a meaning with --augment only; give that too")

    @property
    def variants(self) -> dict[str, float]:
        """What `data.augment.augment` draws, and how much of it."""
        return {"strength": self.augment_strength, "hair": self.augment_hair, "stickers": self.augment_stickers}
