"""What was sampled of one image, at the image's own size."""

from __future__ import annotations

import io
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.inference.files import Extras, write_image
from medsegdiff.inference.results import save
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.io.arrays import to_rgb
from medsegdiff.masks.decision import decide
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.plots.panels import panels


class Segmentation:
    """What is known of one image, at the image's own size (H, W).

    With several foreground classes, M of them, `probability`, `std` and each of `members` have a first axis M.
    """

    def __init__(self, image: np.ndarray, result: ImageResult, settings: dict[str, Any]) -> None:
        self.image = image
        """uint8 (H, W, 3), RGB and upright."""
        self._result, self._settings = result, settings

    @property
    def _size(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return height, width

    @property
    def id(self) -> str:
        """The image's name; empty where it has none."""
        return self._result.id

    @property
    def agreement(self) -> Optional[float]:
        """Expected Dice of two members, in [0, 1], two empty ones being alike; None for a single one.

        A low value is a warning.
        """
        return self._result.agreement

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) uint8: 1 where the probability exceeds one half; of several classes the number of each pixel's."""
        return decide(self.probability.reshape(-1, *self._size))

    @cached_property
    def probability(self) -> np.ndarray:
        """(H, W) float32 in [0, 1]: the mean of the members."""
        return self._at_own_size(self._result.probability)

    @cached_property
    def std(self) -> np.ndarray:
        """(H, W) float32 in [0, 0.5]: standard deviation over the members."""
        return self._at_own_size(self._result.std)

    @cached_property
    def members(self) -> np.ndarray:
        """(K, H, W) float32 in [0, 1]: the sampled masks."""
        return np.stack([self._at_own_size(member) for member in self._result.members])

    def _at_own_size(self, channels: np.ndarray) -> np.ndarray:
        resized = [resize_probability(channel, self._size) for channel in channels]
        return resized[0] if len(resized) == 1 else np.stack(resized)

    def save(
        self, folder: Union[str, Path], *, overlay: bool = True, maps: bool = False, members: bool = False
    ) -> Path:
        """Write the files that `medsegdiff sample` writes of this image, the same bytes, and its row of `images.csv`.

        They say what was sampled; what was changed in the arrays of this object since is not written.

        Args:
            folder: where to; it is made if need be. What was sampled before of an image of this id is replaced
            overlay: the mask drawn over the image, too
            maps: standard deviation and entropy as grey maps, too
            members: every member, and the conditioning network's own mask, too

        Returns:
            The mask's file, `ID.png`.

        Raises:
            InputError: the image has no id, it cannot name files, a file in the way is not sampling's own, the folder
                holds masks of other weights or options, or the disk refuses.
        """
        if not self.id:
            raise InputError('save: the image has no name; give one: segment(image, id="NAME")')
        result, extras = self._result, Extras(overlay, maps, members)
        picture = partial(to_rgb, Image.fromarray(self.image))

        def write(ledger: Ledger, about: dict[str, Any]) -> Path:
            return write_image(ledger, result, self._size, picture, extras, about=about)

        return save(folder, self.id, self._settings, [result], write)

    def __repr__(self) -> str:
        height, width = self._size
        agreement = "" if self.agreement is None else f", agreement {self.agreement:.3f}"
        return f"Segmentation({self.id!r}, {width} x {height} pixels, {self._result.count} members{agreement})"

    def _repr_png_(self) -> bytes:
        """For Jupyter: the image, the mask's outline over it, and where its members differ."""
        several = self.probability.ndim == 3
        probability = (self.mask > 0).astype(np.float32) if several else self.probability
        drawn = panels(self.image, probability, self.std.max(axis=0) if several else self.std)
        file = io.BytesIO()
        Image.fromarray(drawn).save(file, format="PNG")
        return file.getvalue()
