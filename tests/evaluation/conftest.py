from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.evaluation.truth import truth_from_folder
from medsegdiff.io.predictions import Maps, write_prediction

SHAPE = (40, 60)


class Folders:
    """A folder of ground truths and one of predictions, to be filled."""

    def __init__(self, home):
        self.truth, self.predictions = home / "truth", home / "pred"
        self.truth.mkdir()
        self.predictions.mkdir()

    def save_truth(self, id, values) -> Path:
        """Write a mask, bool as 0 and 255, class indices as they are."""
        values = values.astype(np.uint8) * 255 if values.dtype == bool else values
        path = self.truth / f"{id}_Segmentation.png"
        Image.fromarray(values).save(path)
        return path

    def save(self, id, probability, cal=None, members=()) -> Path:
        """Write a prediction of one class (H, W) or of several (M, H, W)."""

        def channels(array):
            return array.astype(np.float32).reshape(-1, *SHAPE)

        maps = Maps(
            channels(probability),
            None,
            None if cal is None else channels(cal),
            [channels(member) for member in members],
        )
        return write_prediction(self.predictions, id, maps)

    def save_images_csv(self, *rows):
        lines = [",".join(map(str, row)) for row in (("id", "members", "empty", "agreement"), *rows)]
        (self.predictions / "images.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path)


@pytest.fixture
def masks():
    """Ten ground truths of growing width by id, ids as in the challenge."""
    masks = {}
    for i in range(10):
        mask = np.zeros(SHAPE, bool)
        mask[10:30, 5 : 15 + 4 * i] = True
        masks[f"ISIC_{i:07d}"] = mask
    return masks


@pytest.fixture
def truth(folders, masks):
    """The files of `masks`."""
    for id, mask in masks.items():
        folders.save_truth(id, mask)
    return truth_from_folder(folders.truth)


@pytest.fixture
def labels():
    """Class indices of two foreground classes."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:35, 5:40] = 1
    labels[15:25, 20:55] = 2
    return labels
