"""The options of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from medsegdiff.base.bounds import bounded, check_fields
from medsegdiff.base.errors import InputError
from medsegdiff.io.volumes import Axis

MaskResize = Literal["bilinear", "nearest"]
VOLUMES = ("nnunet", "brats", "dicom", "volume")
DataName = Literal["auto", "isic", "nnunet", "brats", "dicom", "volume", "folder"]


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they are prepared.

    Args:
        data_name: the folder's layout; auto: found out
        data_dir: the dataset's folder
        labels: values of the masks that are classes, as 1,2,4, or each with its class, as 1:1,2:1,4:2, or a region that
            the dataset names (of BraTS whole, core, enhancing); all others are background; default: as the dataset
            says, else as `num_classes` says
        scaling: how intensities become 0 to 1: 8-bit, z-score or percentile (of each volume and channel), or a window,
            such as -160..240; default: chosen by the files' values
        axis: direction of the slices that volumes are cut into
        skip_blank: leave out slices with one value only
        colour: three channels are red, green and blue
        split: JSON file with the names of cases or patients in "train", "validation" and "test"
        folds: number of parts, by patient, of which one is the test set; 0: the dataset's own, or `test_fraction`
        fold: which of them is the test set, from 0; or which split of a `split` file with several
        test_fraction: share of the patients in the test set, if the dataset has none of its own
        mask_resize: how masks of two classes are resized: bilinear (then > 0, as published) or nearest pixel; masks of
            volumes and of more classes always by the nearest pixel
        augment: random flips and right-angle rotations (not for volumes), and changes of colours or intensities
        augment_strength: adds to `augment`, from 0 (nothing) to 1: zoom, shift, small rotations, elastic
            deformation, hue, and larger colour changes
        augment_hair: share of the images over which `augment` draws hairs, from 0 to 1
        augment_stickers: share of the images over an edge of which `augment` draws a coloured disc, from 0 to 1
        cache_dir: folder for the cache of resized images; default: the user's cache folder
    """

    data_name: DataName = "auto"
    data_dir: str = ""
    labels: str = ""
    scaling: str = ""
    axis: Axis = "axial"
    skip_blank: bool = False
    colour: bool = True
    split: str = ""
    folds: int = bounded(0, 0, 1000)
    fold: int = bounded(0, 0, 999)
    test_fraction: float = 0.2
    mask_resize: MaskResize = "bilinear"
    augment: bool = False
    augment_strength: float = 0.0
    augment_hair: float = 0.0
    augment_stickers: float = 0.0
    cache_dir: Optional[str] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.folds == 1 or (self.fold >= max(self.folds, 1) and not self.split):
            raise InputError(f"`fold` {self.fold}, `folds` {self.folds}: give 2 folds or more, and one below them")
        if not 0 < self.test_fraction < 1:
            raise InputError(f"`test_fraction` {self.test_fraction}: must be between 0 and 1")
        for name in ("augment_strength", "augment_hair", "augment_stickers"):
            option, value = f"`{name}`", getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{option} {value}: must be from 0 to 1")
            if value and not self.augment:
                raise InputError(f"{option} {value}: has an effect with `augment` only; give that too")

    @property
    def variants(self) -> dict[str, float]:
        """What `data.augment.augment` draws, and how much of it."""
        chosen = {"strength": self.augment_strength, "hair": self.augment_hair, "stickers": self.augment_stickers}
        turned = self.data_name not in VOLUMES  # volumes lie as the patient does, and left is not right
        return {**chosen, "rgb": self.colour, "flips": turned, "rotations": turned}
