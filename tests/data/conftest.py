from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.data.cases import Case


def save_pair(image: Path, mask: Path, seed: int, height: int = 24, width: int = 32) -> None:
    rng = np.random.default_rng(seed)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(image)
    pixels = np.zeros((height, width), np.uint8)
    pixels[5 : 12 + seed % 5, 6:20] = 255
    Image.fromarray(pixels).save(mask)


@pytest.fixture
def make_cases(tmp_path):
    """A function that writes `count` cases, PNG so that single pixels can be changed."""

    def make(count: int) -> list[Case]:
        cases = []
        for index in range(count):
            name = f"ISIC_{index:07d}"
            case = Case(name, (tmp_path / f"source/{name}.png",), tmp_path / f"source/{name}_mask.png")
            save_pair(case.image, case.mask, index)
            cases.append(case)
        return cases

    return make


@pytest.fixture
def label_cases(tmp_path):
    """Two cases whose palette masks hold the class indices 0, 1 and 2; the last pixel of the second is of class 2."""
    cases = []
    for index in range(2):
        name = f"ISIC_{index:07d}"
        case = Case(name, (tmp_path / f"source/{name}.png",), tmp_path / f"source/{name}_mask.png")
        save_pair(case.image, case.mask, index)
        labels = np.zeros((24, 32), np.uint8)
        labels[4:20, 6:26] = 1
        labels[9 : 14 + index, 11:20] = 2
        labels[-1, -1] = 2 * index
        picture = Image.fromarray(labels)
        picture.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9])
        picture.save(case.mask)
        cases.append(case)
    return cases


@pytest.fixture
def make_challenge():
    """A function that writes a challenge's pair of folders."""

    def make(folder: Path, images: str, masks: str, count: int = 2, ending: str = "_Segmentation") -> None:
        for index in range(count):
            name = f"ISIC_{index:07d}"
            save_pair(folder / images / f"{name}.jpg", folder / masks / f"{name}{ending}.png", index)

    return make


@pytest.fixture
def make_csv(make_challenge):
    """A function that writes the published project's layout of one split into a folder."""

    def make(folder: Path, part: str, count: int = 2) -> Path:
        images, masks = f"ISBI2016_ISIC_Part1_{part}_Data", f"ISBI2016_ISIC_Part1_{part}_GroundTruth"
        make_challenge(folder, images, masks, count)
        names = [f"ISIC_{index:07d}" for index in range(count)]
        rows = [f"{i},{images}/{n}.jpg,{masks}/{n}_Segmentation.png" for i, n in enumerate(names)]
        table = folder / f"{masks}.csv"
        table.write_text("\n".join([",img,seg", *rows]) + "\n")
        return table

    return make
