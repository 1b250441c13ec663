import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import carry as carrying
from medsegdiff.base.errors import InputError
from medsegdiff.data.cache import prepare
from medsegdiff.data.layouts import folder, isic
from medsegdiff.data.phantom import write_isic


def test_images_arrive_as_the_network_would_see_them(tmp_path, capsys):
    write_isic(tmp_path / "isic", train=2, test=1, size=48)
    carrying.carry(tmp_path / "carried", tmp_path / "isic", 32, packages=False, back=None)
    assert "isic.tar" in capsys.readouterr().out
    with tarfile.open(tmp_path / "carried" / "isic.tar") as tar:
        tar.extractall(tmp_path / "there")
    before = prepare(isic.find(tmp_path / "isic", "train"), 32)
    after = prepare(folder.find(tmp_path / "there", "train"), 32)
    assert after.ids == before.ids
    for index in range(2):
        np.testing.assert_array_equal(after.image(index), before.image(index))
        np.testing.assert_array_equal(after.mask(index), before.mask(index))
    assert Image.open(next((tmp_path / "there" / "images" / "test").iterdir())).size == (32, 32)


def test_what_cannot_travel_is_refused(tmp_path, monkeypatch):
    write_isic(tmp_path / "isic", train=1, test=1, size=48)
    monkeypatch.setattr(carrying, "LIMIT", 1000)
    with pytest.raises(InputError, match="are more than the"):
        carrying.carry(tmp_path / "carried", tmp_path / "isic", 32, packages=False, back=None)
