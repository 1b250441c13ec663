import os
import sys
from pathlib import Path

import pytest

from medsegdiff.runtime.cuda import copies, edits, toolkit
from tests.runtime.cuda.fakes import fake_cuda, fake_cudnn


class Utilities:
    """What is used of the module `jittor_utils`."""

    def __init__(self, folder):
        self.folder = folder
        self.cache_path = self.find_cache_path()

    def find_cache_path(self):
        path = str(self.folder / os.environ["cache_name"])
        sys.path.append(path)
        return path


@pytest.fixture
def found(tmp_path):
    fake_cudnn(tmp_path / "cuda")
    return toolkit.describe(fake_cuda(tmp_path / "cuda"))


@pytest.fixture
def copy(tmp_path, found):
    folder = copies.folder(tmp_path / "home", found, "1.3.11.0")
    (folder / "jittor").mkdir(parents=True)
    toolkit.lay_out(found, folder / "cuda")
    (folder / copies.RECORD).touch()
    return folder


def test_a_prepared_copy_is_found(tmp_path, found, copy):
    assert copies.prepared(tmp_path / "home", found, "1.3.11.0") == copy


def test_one_that_was_not_finished_is_not(tmp_path, found, copy):
    (copy / copies.RECORD).unlink()
    assert copies.prepared(tmp_path / "home", found, "1.3.11.0") is None


def test_nor_one_for_another_release_of_anything(tmp_path, found, copy, monkeypatch):
    home = tmp_path / "home"
    assert copies.prepared(home, found, "1.3.12.0") is None
    assert copies.prepared(home, found._replace(version=(13, 1)), "1.3.11.0") is None
    monkeypatch.setattr(edits, "EDITS", edits.EDITS[1:])
    assert copies.prepared(home, found, "1.3.11.0") is None
    monkeypatch.undo()
    fake_cudnn(tmp_path / "cuda", "9.29.0")
    assert copies.prepared(home, found, "1.3.11.0") is None


def test_nor_one_whose_libraries_were_uninstalled(tmp_path, found, copy):
    (tmp_path / "cuda/lib64/libcublas.so.13").unlink()
    assert copies.prepared(tmp_path / "home", found, "1.3.11.0") is None


@pytest.mark.parametrize(("gpus", "said"), [((90,), "90"), ((86, 90), None), ((), None)])
def test_import_is_led_to_the_copy_and_to_a_cache_of_its_own(tmp_path, copy, monkeypatch, gpus, said):
    monkeypatch.setenv("cache_name", "default")
    monkeypatch.setattr(toolkit, "capabilities", lambda: gpus)
    monkeypatch.setenv("cuda_archs", "before")  # so that it is put back
    monkeypatch.delenv("cuda_archs")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("nvcc_path", "use_cutt", "use_cutlass", "use_nccl", "nccl_include_path", "nccl_lib_path"):
        monkeypatch.setenv(name, "before")
    utilities = Utilities(tmp_path)
    plain = utilities.cache_path
    for _ in range(2):  # a child process does it again
        copies.put_in_front(copy, utilities)
        assert sys.path[0] == str(copy)
        assert plain not in sys.path
        assert utilities.cache_path == f"{plain}-{copy.name}"
        assert sys.path.count(utilities.cache_path) == 1
        assert os.environ.get("cuda_archs") == said
    assert os.environ["nvcc_path"] == str(copy / "cuda/bin/nvcc")
    assert [os.environ[name] for name in ("use_cutt", "use_cutlass", "use_nccl")] == ["0", "0", "0"]
    (copy / "cuda/include/nccl.h").touch()
    copies.put_in_front(copy, utilities)
    assert os.environ["use_nccl"] == "1"


def test_what_the_copy_compiled_is_looked_for_in_its_own_cache(tmp_path, copy, monkeypatch):
    monkeypatch.setenv("cache_name", "default")
    monkeypatch.setattr(sys, "path", list(sys.path))
    utilities = Utilities(tmp_path)
    assert copies.cache(None, utilities) == Path(utilities.cache_path)
    own = copies.cache(copy, utilities)
    assert own.name.endswith(copy.name)
    utilities.cache_path = str(own)  # once it is in front
    assert copies.cache(copy, utilities) == own
