import ctypes
import importlib.metadata
import os
import subprocess

import pytest

from medsegdiff.runtime.cuda import toolkit
from tests.runtime.cuda.fakes import fake_cuda, fake_cudnn, fake_headers, fake_nvcc


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """A machine without any CUDA."""
    monkeypatch.delenv("nvcc_path", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolkit, "_wheels", lambda: None)
    monkeypatch.setattr(toolkit, "_SYSTEM_HEADERS", ())
    monkeypatch.setattr(toolkit, "_SYSTEM_LIBRARIES", ())
    installed = {"nvidia-cudnn-cu13": "9.28.1", "nvidia-cublas-cu12": "12.4", "nvidia-nccl-cu13": "2.32"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version_in(installed, name))
    monkeypatch.setattr(toolkit, "_USUAL", tmp_path / "usual/bin/nvcc")
    return monkeypatch


def version_in(installed, name):
    if name not in installed:
        raise importlib.metadata.PackageNotFoundError(name)
    return installed[name]


def names(parts):
    return [part.name for part in parts]


def test_nothing_is_found(nothing):
    assert toolkit.find() is None


def test_a_toolkit_of_the_system(nothing, tmp_path):
    nvcc = fake_cuda(tmp_path / "usual")
    found = toolkit.find()
    assert (found.nvcc, found.version, found.cuda) == (nvcc, (13, 0), "13.0")
    assert names(found.missing()) == ["cudnn"]
    assert found.cudnn is None
    fake_cudnn(tmp_path / "usual")
    assert (toolkit.find().missing(), toolkit.find().cudnn) == ((), "9.28.1")


def test_a_compiler_without_anything_else(nothing, tmp_path):
    nothing.setenv("nvcc_path", str(fake_nvcc(tmp_path / "cuda")))
    assert names(toolkit.find().missing()) == names(toolkit.PARTS)


def test_wheels_complete_a_toolkit(nothing, tmp_path):
    nvcc = fake_nvcc(tmp_path / "usual")
    fake_cuda(tmp_path / "nvidia/cu13", lib="lib")
    fake_cudnn(tmp_path / "nvidia/cudnn")
    found = toolkit.describe(nvcc, tmp_path / "nvidia")
    assert (found.missing(), found.cudnn) == ((), "9.28.1")


def test_wheels_for_another_cuda_do_not(nothing, tmp_path):
    nvcc = fake_nvcc(tmp_path / "usual", "12.4")
    fake_cuda(tmp_path / "nvidia/cu13", lib="lib")
    fake_cudnn(tmp_path / "nvidia/cudnn")
    fake_headers(tmp_path / "nvidia/nccl", "include/nccl.h", "lib/libnccl.so.2")
    found = toolkit.describe(nvcc, tmp_path / "nvidia")
    assert found.missing() == toolkit.PARTS
    assert found.header("nccl.h") is None


def test_the_wheels_of_cuda_12_lie_in_a_folder_each(nothing, tmp_path):
    fake_nvcc(tmp_path / "usual", "12.4")
    fake_headers(tmp_path / "nvidia/cublas", "include/cublas_v2.h", "lib/libcublas.so.12")
    found = toolkit.describe(tmp_path / "usual/bin/nvcc", tmp_path / "nvidia")
    assert "cublas" not in names(found.missing())


def test_the_compiler_among_the_wheels_comes_before_that_of_the_system(nothing, tmp_path):
    fake_cuda(tmp_path / "usual", "12.4")
    nvcc = fake_cuda(tmp_path / "nvidia" / "cu13", lib="lib")
    nothing.setattr(toolkit, "_wheels", lambda: tmp_path / "nvidia")
    assert toolkit.find().nvcc == nvcc
    nothing.setenv("nvcc_path", str(tmp_path / "usual/bin/nvcc"))
    assert toolkit.find().version == (12, 4)


def test_a_wrapper_leads_to_the_toolkit(nothing, tmp_path):
    nvcc = fake_cuda(tmp_path / "usual")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    wrapper.chmod(0o755)
    assert toolkit.describe(wrapper).nvcc == nvcc
    assert names(toolkit.describe(wrapper).missing()) == ["cudnn"]


def test_a_compiler_that_does_not_run_is_none(nothing, tmp_path):
    nvcc = fake_cuda(tmp_path / "usual")
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    assert toolkit.find() is None


def test_what_is_missing_is_named_as_pip_knows_it():
    parts = {part.name: part for part in toolkit.PARTS}
    assert (
        toolkit.remedy([parts["cublas"], parts["cufft"], parts["cudnn"]], (13, 1))
        == "pip install 'cuda-toolkit[cublas,cufft]==13.1.*' 'nvidia-cudnn-cu13==9.*'"
    )
    assert toolkit.remedy([parts["cudnn"]], (12, 4)) == "pip install 'nvidia-cudnn-cu12==9.*'"
    assert "cuda-toolkit[nvcc,cudart" in toolkit.remedy_without_nvcc()


def test_the_home_is_as_jittor_wants_it(nothing, tmp_path):
    fake_cuda(tmp_path / "usual")
    wheels = tmp_path / "nvidia"
    fake_cudnn(wheels / "cudnn")
    fake_headers(wheels / "cudnn", "include/curand.h")  # the toolkit's own counts
    home = tmp_path / "home"
    nvcc = toolkit.lay_out(toolkit.describe(tmp_path / "usual/bin/nvcc", wheels), home)
    assert nvcc == home / "bin" / "nvcc"
    assert not nvcc.is_symlink()
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    assert "release 13.0" in said
    assert (home / "include/curand.h").resolve() == tmp_path / "usual/include/curand.h"
    assert (home / "include/cudnn.h").is_file()
    for name in ("libcudart.so", "libcudart.so.13", "libcudnn.so", "libcudnn.so.9"):
        assert (home / "lib64" / name).exists(), name


def test_of_the_systems_folders_only_what_is_of_cuda_is_taken(nothing, tmp_path):
    fake_headers(tmp_path, "cudnn.h", "stdio.h", "nccl.h")
    nothing.setattr(toolkit, "_SYSTEM_HEADERS", (tmp_path,))
    assert [path.name for path in toolkit._entries([tmp_path], "cu*", "nccl*")] == ["cudnn.h", "nccl.h"]


@pytest.mark.parametrize(("answer", "version"), [(13000, (13, 0)), (12040, (12, 4))])
def test_the_driver_says_what_it_runs(monkeypatch, answer, version):
    class Driver:
        def cuDriverGetVersion(self, place):
            place._obj.value = answer
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert toolkit.driver_version() == version


@pytest.mark.parametrize(
    ("gpus", "found"), [([], ()), ([(9, 0)], (90,)), ([(9, 0), (8, 6), (9, 0)], (86, 90)), ([(12, 1)], (121,))]
)
def test_the_driver_says_what_its_gpus_can_do(monkeypatch, gpus, found):
    class Driver:
        def cuInit(self, flags):
            return 0

        def cuDeviceGetCount(self, place):
            place._obj.value = len(gpus)
            return 0

        def cuDeviceGet(self, place, index):
            place._obj.value = 10 + index
            return 0

        def cuDeviceGetAttribute(self, place, attribute, device):
            place._obj.value = gpus[device.value - 10][attribute - 75]
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert toolkit.capabilities() == found


def test_without_a_driver_there_is_no_version(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert toolkit.driver_version() is None
    assert toolkit.capabilities() == ()


def test_wheels_are_looked_for_where_python_does(tmp_path, monkeypatch):
    (tmp_path / "nvidia").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert toolkit._wheels() is not None
    assert os.path.isdir(toolkit._wheels())  # noqa: PTH112
