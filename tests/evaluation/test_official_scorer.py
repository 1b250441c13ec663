"""Dice and IoU are those of the challenge's own scorer."""

import shutil

import numpy as np
import pytest
from isic_challenge_scoring.segmentation import SegmentationScore

from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.truth import truth_from_folder
from tests.evaluation.conftest import SHAPE


def test_mean_dice_and_iou_are_the_official_scorers(folders, tmp_path):
    random = np.random.default_rng(0)
    rows, columns = np.indices(SHAPE)
    for i in range(24):
        (row, column), radius = random.uniform(5, 35, 2), random.uniform(2, 15)
        disc = np.hypot(rows - row, columns - column) < radius
        found = np.roll(disc, random.integers(-6, 7, 2), axis=(0, 1)) ^ (random.random(SHAPE) < 0.02)
        if i < 3:  # nothing there: found so, missed, or imagined
            disc, found = disc & (i == 1), found & (i == 2)
        folders.save_truth(f"ISIC_{i:07d}", disc)
        folders.save(f"ISIC_{i:07d}", found)
    ours = evaluate(folders.predictions, truth_from_folder(folders.truth)).summaries

    masks = tmp_path / "masks"  # the scorer takes every file of an image for its mask
    masks.mkdir()
    for path in folders.truth.iterdir():
        id = path.name.replace("_Segmentation", "")
        shutil.copy(folders.predictions / id, masks / id)
    official = SegmentationScore.from_dir(folders.truth, masks).macro_average
    assert ours["dice"].mean == pytest.approx(official["dice"], abs=1e-6)
    assert ours["iou"].mean == pytest.approx(official["jaccard"], abs=1e-6)
    assert 0.3 < official["dice"] < 0.9
