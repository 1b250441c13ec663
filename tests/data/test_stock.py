import numpy as np
import pytest
from PIL import Image

from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.stock import clear, listing


@pytest.fixture
def cache(tmp_path):
    """A folder in which a dataset was prepared."""
    Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(tmp_path / "a.png")
    prepare([Case("a", (tmp_path / "a.png",))], 16, tmp_path / "cache", progress=False)
    return tmp_path / "cache"


def test_all_that_was_prepared_is_removed(cache):
    assert listing(cache).entries == 1
    assert clear(cache) > 0
    assert list(cache.iterdir()) == []
    assert clear(cache) == 0


def test_what_others_have_beside_it_stays(cache):
    theirs = [
        cache / name for name in ("datasets/ISIC/a.png", "datasets/a.json", "cases/ab/b.safetensors", "cases/c.png")
    ]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (cache / "cases" / "empty").mkdir()
    clear(cache)
    assert sorted(path for path in cache.rglob("*") if path.is_file()) == sorted(theirs)
    assert (cache / "cases" / "empty").is_dir()
