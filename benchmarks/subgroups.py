"""Scores by what is seen in the test pictures of ISIC 2016: lesion size, hair, dark border, ruler, colour chart or ink.

    python -m benchmarks.subgroups --data-dir DIR --pred-path predictions --out DIR

`evaluate` must have scored the predictions. Hair and dark borders are detected here; rulers, colour charts and ink are
as noted in isic2016-test-seen.csv, by eye, at 140 pixels (faint marks may be missing). Writes groups.csv (each
image), README.md (the table with 95 % bootstrap intervals) and a sheet of pictures per group, to check.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medsegdiff.data.layouts.isic import find
from medsegdiff.io.masks import read_mask
from medsegdiff.io.pictures import read_image
from medsegdiff.masks.decision import THRESHOLD
from medsegdiff.masks.resizing import resize_probability
from medsegdiff.masks.statistics import summarise
from medsegdiff.plots.contact_sheet import Tile, contact_sheet

FRAME = 6  # pixels at the picture's edges, where many have a line
SEEN = Path(__file__).with_name("isic2016-test-seen.csv")
SIDE = 256  # of the square that pictures are examined at, in pixels
SIZES = {"under 5 %": (0, 0.05), "5 to 15 %": (0.05, 0.15), "15 to 35 %": (0.15, 0.35), "over 35 %": (0.35, 2)}
LINES = [np.eye(9, dtype=bool), np.eye(9, dtype=bool)[::-1], np.ones((1, 9), bool), np.ones((9, 1), bool)]


def darker(grey: np.ndarray) -> np.ndarray:
    """How much darker thin structures are than their surroundings, float32 (H, W) in [0, 1]."""
    closed = np.max([ndimage.grey_closing(grey, footprint=line) for line in LINES], axis=0)
    return ndimage.gaussian_filter(closed - grey, 0.7)


def has_hair(dark: np.ndarray, lesion: np.ndarray) -> bool:
    """Whether long thin dark structures cover more than 0.7 % of the skin: not the lesion, not the picture's frame."""
    skin = ~ndimage.binary_dilation(lesion, iterations=4)
    skin[:FRAME], skin[-FRAME:], skin[:, :FRAME], skin[:, -FRAME:] = False, False, False, False
    labels, _ = ndimage.label((dark > 0.08) & skin, np.ones((3, 3)))
    hairs = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        length = np.hypot(*(part.stop - part.start for part in box))
        if length > SIDE / 8 and (labels[box] == label).sum() / length < 5:
            hairs.append(label)
    return bool(np.isin(labels, hairs).sum() > 0.007 * max(skin.sum(), 1))


def has_dark_border(grey: np.ndarray) -> bool:
    """Whether more than 3 % is black and touches a corner."""
    labels, _ = ndimage.label(grey < 0.16)
    corners = {labels[row, column] for row in (2, -3) for column in (2, -3)} - {0}
    return bool(np.isin(labels, list(corners)).mean() > 0.03)


def groups(picture: np.ndarray, mask: np.ndarray, noted: str) -> list[str]:
    """The groups that a picture, uint8 (H, W, 3), belongs to, with its mask and what was noted of it."""
    picture = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX))
    grey = picture.astype(np.float32).mean(-1) / 255
    dark = darker(grey)
    lesion = resize_probability(mask, grey.shape) > THRESHOLD
    seen = {
        "hair": has_hair(dark, lesion),
        "dark border": has_dark_border(grey),
        "ruler": noted == "ruler",
        "colour chart or ink": noted == "colour chart or ink",
    }
    share = (mask > THRESHOLD).mean()
    size = next(name for name, (low, high) in SIZES.items() if low <= share < high)
    return [f"lesion {size} of the picture", *(name if there else f"no {name}" for name, there in seen.items())]


def main(argv: Sequence[str] | None = None) -> None:
    """Find the groups, read the scores, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pred-path", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.pred_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        scores = {row["id"]: float(row["dice"]) for row in csv.DictReader(file) if row["dice"]}
    with SEEN.open(newline="", encoding="utf-8") as file:
        noted = {row["id"]: row["seen"] for row in csv.DictReader(file)}
    members: dict[str, list[str]] = {}
    pictures = {}
    for case in find(options.data_dir, "test"):
        if case.id in scores:
            pictures[case.id] = read_image(case.image)
            for name in groups(pictures[case.id], read_mask(case.mask), noted.get(case.id, "")):
                members.setdefault(name, []).append(case.id)
    lines = ["| pictures | how many | mean Dice | 95 % interval |", "| --- | ---: | ---: | --- |"]
    for name, ids in [("all", list(pictures)), *sorted(members.items())]:
        found = summarise([scores[id] for id in ids], seed=0)
        lines.append(f"| {name} | {len(ids)} | {found.mean:.3f} | {found.low:.3f} to {found.high:.3f} |")
        if not name.startswith(("no ", "all", "lesion ")):
            sheet = contact_sheet([Tile(pictures[id], None, id) for id in ids], columns=12)
            Image.fromarray(sheet).save(options.out / f"{name.replace(' ', '-')}.jpg")
    (options.out / "README.md").write_text("\n".join(["# Scores by what is seen", "", *lines, ""]), encoding="utf-8")
    with (options.out / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "dice", "groups"])
        table.writerows([id, scores[id], "; ".join(n for n, ids in members.items() if id in ids)] for id in pictures)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
