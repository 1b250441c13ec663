import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from medsegdiff.base.ownership import Ledger
from medsegdiff.inference.files import Extras, row_of, write_image
from medsegdiff.inference.segmenter import ImageResult
from medsegdiff.io.arrays import to_rgb
from medsegdiff.io.ensembles import ImageRow
from medsegdiff.io.predictions import WRITER


def result(count=3, empty=0, agreement=0.5):
    probability = np.zeros((1, 16, 16), np.float32)
    probability[0, 4:9, 5:11] = 0.9
    return ImageResult(0, "a", probability, 0 * probability, probability, count, empty, agreement, np.empty(0))


def test_the_overlay_shows_the_ground_truth_that_labels_say(tmp_path):
    levels = np.full((20, 24), 255, np.uint8)
    levels[5:12, 6:15] = 128
    Image.fromarray(levels).save(tmp_path / "levels.png")
    Image.fromarray(np.where(levels == 128, 255, 0).astype(np.uint8)).save(tmp_path / "plain.png")
    drawn = {}
    for name, labels in (("plain", None), ("levels", {128: 1})):
        (tmp_path / name).mkdir()
        truth = tmp_path / f"{name}.png"
        ledger = Ledger(tmp_path / name, WRITER)
        picture = partial(to_rgb, Image.new("RGB", (24, 20)))
        write_image(ledger, result(), (20, 24), picture, Extras(), truth=truth, labels=labels)
        drawn[name] = (tmp_path / name / "a_overlay.png").read_bytes()
    assert drawn["plain"] == drawn["levels"]


def test_a_volume_s_row_is_of_its_slices_with_foreground():
    assert row_of([result()]) == ImageRow(3, 0, 0.5)
    assert row_of([result(empty=3, agreement=1.0)]) == ImageRow(3, 3, 1.0)
    slices = [result(empty=3, agreement=1.0), result(agreement=0.4), result(count=4, empty=1, agreement=0.6)]
    assert row_of(slices) == ImageRow(3, 0, 0.5)
    assert row_of([result(empty=3, agreement=1.0)] * 2) == ImageRow(3, 3, 1.0)
    assert row_of([result(1, 1, None)] * 2) == ImageRow(1, 1, None)


def test_the_overlay_of_a_large_picture_is_made_to_be_looked_at(tmp_path):
    write_image(
        Ledger(tmp_path, WRITER), result(), (1025, 4100), lambda size: np.full((*size, 3), 90, np.uint8), Extras()
    )
    with Image.open(tmp_path / "a.png") as mask, Image.open(tmp_path / "a_overlay.png") as overlay:
        assert mask.size == (4100, 1025)
        assert overlay.height == 512
        assert overlay.width > 2 * 2048
        drawn = np.asarray(overlay)
    assert (drawn[:, :2048] != 90).any()  # the outline is there


def test_a_large_picture_takes_little_memory(tmp_path):
    """As a whole its maps would take 1,100 MiB."""
    code = """
import resource, sys
from pathlib import Path
from PIL import Image
from medsegdiff.base.ownership import Ledger
from medsegdiff.inference.files import Extras, write_image
from medsegdiff.io.arrays import to_rgb
from medsegdiff.io.predictions import WRITER
from tests.inference.test_files import result
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before, side = peak(), 4000
picture = lambda size: to_rgb(Image.new("RGB", (side, side), (90, 90, 90)), size)
write_image(Ledger(Path(sys.argv[1]), WRITER), result(), (side, side), picture, Extras(maps=True), postprocess=True)
print(peak() - before)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450
    with Image.open(tmp_path / "a_entropy.png") as entropy:
        assert entropy.size == (4000, 4000)
