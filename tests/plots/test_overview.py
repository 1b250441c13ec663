import subprocess
import sys

import pytest
from PIL import Image

from medsegdiff.plots.overview import Row, overview


def test_overview_is_written_whole(tmp_path, row):
    bare = Row("bare", row.image, row.probability)
    overview([row, bare], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        # Six columns of 1.5 inches at 300 dots: image, truth, two samples, mean, uncertainty.
        assert picture.format == "PNG"
        assert picture.width == round((6 * 1.5 + 0.3) * 300)
    overview([bare], tmp_path / "narrow.png")
    with Image.open(tmp_path / "narrow.png") as picture:
        assert picture.width == round((2 * 1.5 + 0.3) * 300)
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "narrow.png"}


def test_overview_follows_the_suffix(tmp_path, row):
    overview([row], tmp_path / "figure.pdf", max_members=0)
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_overview_needs_a_row(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        overview([], tmp_path / "figure.png")


def test_importing_does_not_load_matplotlib():
    code = "import sys, medsegdiff.plots.overlay, medsegdiff.plots.overview; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
