import os
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu import carry as carrying
from benchmarks.gpu.visit import ROOT
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


@pytest.mark.e2e
@pytest.mark.skipif(not os.environ.get("MEDSEGDIFF_ONLINE"), reason="downloads 30 MB; MEDSEGDIFF_ONLINE=1 runs it")
def test_the_packages_suffice_in_an_empty_environment_without_an_index(tmp_path):
    python = shutil.which(f"python{carrying.PYTHON}")
    carrying.fetch(tmp_path / "wheels")
    assert sum(wheel.stat().st_size for wheel in (tmp_path / "wheels").iterdir()) < 40 << 20
    subprocess.run([python, "-m", "venv", tmp_path / "empty"], check=True)
    inside = tmp_path / "empty" / "bin" / "python"
    offline = ["--no-index", "--no-cache-dir", "--quiet"]
    subprocess.run([inside, "-m", "pip", "install", *offline, *(tmp_path / "wheels").iterdir()], check=True)
    subprocess.run([inside, "-m", "pip", "check"], check=True)
    commands = ("cli", "train", "sample", "evaluate", "parity", "doctor")
    imports = ", ".join(["benchmarks.gpu.stages", *(f"medsegdiff.app.{command}" for command in commands)])
    subprocess.run([inside, "-c", f"import {imports}"], cwd=ROOT, check=True)
