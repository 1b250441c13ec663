"""The tutorials' own lines, one after another, on data made here and with a network that is trained in two steps."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.data.drawing import draw
from tests.data.volumes import ball, write

PAGES = Path(__file__).parents[2] / "docs/tutorials"
SMALL = {
    "train": "--image-size 32 --num-channels 32 --channel-mult 1,1 --num-res-blocks 1 --diffusion-steps 30 --steps 2 "
    "--batch-size 2 --tensorboard False --val-interval 0",
    "sample": "--members 2 --steps 2 --limit 2",
}

pytestmark = [pytest.mark.e2e, pytest.mark.extended]


def picture(folder, name, seed):
    """A picture and its mask in `images` and `masks` of a folder."""
    image, mask = draw(np.random.default_rng(seed), 48)
    for kind, pixels in (("images", image), ("masks", np.uint8(255) * (mask > 0))):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def isic(home):
    assert (
        main(["data", "phantom", "--out-dir", str(home / "isic"), "--size", "48", "--train", "6", "--test", "3"]) == 0
    )


def own_folder(home):
    for number in range(8):
        picture(home / "skin", f"a{number}", number)
        picture(home / "new", f"b{number}", number)
    (home / "new/images").rename(home / "other")
    for path in (home / "other").iterdir():
        path.rename(home / "new" / path.name)


def brats(home):
    for number in range(4):
        case = f"BraTS2021_{number:05}"
        image, labels = ball((24, 24, 6), 4, seed=number)
        for channel, name in enumerate(("flair", "t1", "t1ce", "t2")):
            write(home / "brats" / case / f"{case}_{name}.nii.gz", image[..., channel])
        write(home / "brats" / case / f"{case}_seg.nii.gz", np.uint8([0, 2, 4])[labels])


def raters(home):
    for number in range(5):
        for rater in range(2):
            picture(home / "lesions", f"p{number}/r{rater}", number)


MADE = {"isic": isic, "own-folder": own_folder, "brats": brats, "raters": raters}


def lines(page):
    """The page's lines of `medsegdiff`, as words."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    found = [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("medsegdiff ")]
    return [words for words in found if words[:2] != ["data", "download"]]  # there is no network here


def test_there_is_a_test_for_each_tutorial():
    assert {page.stem for page in PAGES.glob("*.md")} == set(MADE)


@pytest.mark.parametrize("name", MADE)
def test_a_tutorial_s_lines_work_as_they_stand(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEGDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    MADE[name](tmp_path)
    for words in lines(PAGES / f"{name}.md"):
        code = main([*words, *SMALL.get(words[0], "").split()])
        assert code == 0 or (words[:2] == ["data", "check"] and code == 1), words  # it found something to say
    wanted = ["run/step-000002", "masks/metrics.csv", "masks/images.csv"]
    assert all((tmp_path / path).exists() for path in wanted)
    assert name == "brats" or "<html" in (tmp_path / "masks/report.html").read_text()[:200]
