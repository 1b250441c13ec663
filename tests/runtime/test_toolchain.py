import ctypes.util
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from medsegdiff.runtime import toolchain
from medsegdiff.runtime.errors import InputError


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A monkeypatch under which `prepare` leaves no trace in this process."""
    import jittor_utils
    import jittor_utils.install_cuda

    monkeypatch.setenv("nvcc_path", "")
    monkeypatch.setenv("use_mpi", "0")
    monkeypatch.setenv("log_silent", "1")
    monkeypatch.delenv("cc_path", raising=False)
    monkeypatch.setattr(jittor_utils.install_cuda, "install_cuda", jittor_utils.install_cuda.install_cuda)
    for name in ("pool_initializer", "_py3_include_path", "_py3_extension_suffix"):
        monkeypatch.setattr(jittor_utils, name, getattr(jittor_utils, name, None), raising=False)
    monkeypatch.setattr(toolchain, "jittor_home", lambda: tmp_path / "home")
    return monkeypatch


def fake_nvcc(root, version="12.4"):
    nvcc = root / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.99"\n')
    nvcc.chmod(0o755)
    return nvcc


def pretend_version(monkeypatch, **versions):
    real = toolchain.package_version
    monkeypatch.setattr(toolchain, "package_version", lambda name: versions.get(name, real(name)))


@pytest.mark.parametrize("version", ["2.0.0", "2.3.1", "10.0"])
def test_numpy_2_is_refused(machine, version):
    pretend_version(machine, numpy=version)
    with pytest.raises(InputError, match=rf"NumPy {version}: .*pip install 'numpy<2'"):
        toolchain.prepare()


def test_missing_jittor_is_named(machine):
    pretend_version(machine, jittor=None)
    with pytest.raises(InputError, match="Jittor is not installed"):
        toolchain.prepare()


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 13, 0)])
def test_unfit_python_is_refused(machine, version):
    machine.setattr(sys, "version_info", version)
    with pytest.raises(InputError, match=r"Jittor runs on 3\.9 to 3\.12"):
        toolchain.prepare()


def test_missing_compiler_is_named(machine, tmp_path):
    machine.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"g\+\+ not found.*apt install g\+\+"):
        toolchain.prepare()


def test_a_compiler_that_does_not_run_counts_as_missing(machine, tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 12.2.0\nexit 1\n")
    broken.chmod(0o755)
    machine.setenv("cc_path", str(broken))
    with pytest.raises(InputError, match=r"g\+\+ not found"):
        toolchain.prepare()


def test_missing_python_header_is_named(machine, tmp_path):
    paths = {**sysconfig.get_paths(), "include": str(tmp_path)}
    machine.setattr(sysconfig, "get_paths", lambda: paths)
    with pytest.raises(InputError, match=r"Python\.h not found.*python3-dev"):
        toolchain.prepare()
    (tmp_path / "Python.h").touch()
    assert toolchain.find_python_header() == tmp_path / "Python.h"


@pytest.mark.parametrize("missing", toolchain.ONEDNN_WHEELS)
def test_missing_onednn_wheel_is_named_and_nothing_is_laid_down(machine, tmp_path, missing):
    real = importlib.metadata.files

    def files(name):
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    machine.setattr(importlib.metadata, "files", files)
    with pytest.raises(InputError, match=r"oneDNN not found.*pip install onednn-cpu-gomp==2022\.2\.1"):
        toolchain.prepare()
    assert not (tmp_path / "home").exists()


@pytest.mark.skipif(toolchain.find_onednn() is None, reason="the oneDNN wheels are not installed")
def test_onednn_is_laid_where_jittor_looks_and_then_left_alone(machine, tmp_path):
    toolchain.prepare()
    folder = tmp_path / "home/.cache/jittor/mkl" / "dnnl_lnx_2.2.0_cpu_gomp"
    assert (folder / "include" / "dnnl.hpp").is_file()
    library = folder / "lib" / "libmkldnn.so"
    assert library.is_file()
    assert not library.is_symlink()
    assert (folder / "lib" / "libdnnl.so.2").resolve() == library.resolve()
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]

    library.write_text("the user's own")
    toolchain.prepare()
    assert library.read_text() == "the user's own"


def test_nvcc_without_a_cuda_runtime_beside_it_is_ignored(machine, tmp_path):
    nvcc = fake_nvcc(tmp_path / "cuda")
    machine.delenv("nvcc_path")
    machine.setenv("PATH", f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}")
    machine.setattr(ctypes.util, "find_library", lambda _: "libcuda.so.1")
    assert shutil.which("nvcc") == str(nvcc)
    assert toolchain.find_cuda() == (None, f"{nvcc} has no CUDA runtime (libcudart) beside it")


@pytest.mark.parametrize("place", ["lib64", "lib", "targets/x86_64-linux/lib"])
def test_nvcc_with_runtime_and_driver_is_found(machine, tmp_path, place):
    nvcc = fake_nvcc(tmp_path / "cuda")
    (tmp_path / "cuda" / place).mkdir(parents=True)
    (tmp_path / "cuda" / place / "libcudart.so.12").touch()
    machine.setenv("nvcc_path", str(nvcc))
    machine.setattr(ctypes.util, "find_library", lambda _: "libcuda.so.1")
    assert toolchain.find_cuda() == (str(nvcc), "CUDA 12.4")
    machine.setattr(ctypes.util, "find_library", lambda _: None)
    assert toolchain.find_cuda() == (None, f"{nvcc} found, but no NVIDIA driver (libcuda)")


def test_cuda_13_is_ignored(machine, tmp_path):
    nvcc = fake_nvcc(tmp_path / "cuda", "13.0")
    (tmp_path / "cuda/lib64").mkdir()
    (tmp_path / "cuda/lib64/libcudart.so").touch()
    machine.setenv("nvcc_path", str(nvcc))
    machine.setattr(ctypes.util, "find_library", lambda _: "libcuda.so.1")
    assert toolchain.find_cuda()[0] is None
    assert "CUDA 13.0" in toolchain.find_cuda()[1]


def test_command_version(tmp_path):
    assert toolchain.command_version(sys.executable) == sys.version.split()[0]
    assert toolchain.command_version(str(tmp_path / "absent")) is None
    assert toolchain.command_version(sys.executable, "-c", "raise SystemExit('1.2.3')") is None


def test_the_backend_starts_with_an_unusable_nvcc_first_in_the_path(tmp_path):
    nvcc = fake_nvcc(tmp_path / "cuda")
    environment = {**os.environ, "PATH": f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("nvcc_path", None)
    code = (
        "from medsegdiff.runtime.backend import jt\n"
        "print(int(jt.flags.use_cuda), bool(jt.has_cuda), jt.array([1.0, 2.0]).sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "False", "3.0"]


def test_the_backend_leaves_ctrl_c_to_python():
    code = (
        "import signal\nbefore = signal.default_int_handler\nsignal.signal(signal.SIGINT, before)\n"
        "from medsegdiff.runtime.backend import jt\nassert signal.getsignal(signal.SIGINT) is before\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('caught')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["caught"], done.stderr


def fake_mpicc(folder, answers):
    """An `mpicc` that answers to some words, and an `mpirun` beside it."""
    mpicc = folder / "mpicc"
    cases = "".join(f"  {word}) echo '{answer}' ;;\n" for word, answer in answers.items())
    mpicc.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}  *) exit 1 ;;\nesac\n')
    mpicc.chmod(0o755)
    return mpicc


OPEN_MPI = {"--showme:version": "mpicc: Open MPI 4.1.4 (Language: C)"}


@pytest.fixture
def mpi(machine, tmp_path):
    """A folder for `mpicc` and `mpirun`, the only ones there are."""
    real = shutil.which
    machine.delenv("mpicc_path", raising=False)

    def which(name):
        found = tmp_path / name
        return (str(found) if found.exists() else None) if name.startswith("mpi") else real(name)

    machine.setattr(shutil, "which", which)
    return tmp_path


def test_open_mpi_is_found_whole_or_what_it_lacks_is_named(mpi):
    assert toolchain.find_mpi() == (None, "no mpicc found")
    mpicc = fake_mpicc(mpi, {"--version": "gcc 12.2.0"})
    assert toolchain.find_mpi() == (None, f"{mpicc} is not Open MPI's")
    fake_mpicc(mpi, {**OPEN_MPI, "--showme:incdirs": mpi})
    assert toolchain.find_mpi() == (None, f"{mpicc} found, but not mpi.h")
    (mpi / "mpi.h").touch()
    assert toolchain.find_mpi() == (None, f"{mpicc} found, but no mpirun")
    (mpi / "mpirun").touch()
    assert toolchain.find_mpi() == (str(mpicc), "Open MPI 4.1.4")


def test_without_mpirun_jittor_is_kept_from_mpi(machine):
    machine.delenv("OMPI_COMM_WORLD_SIZE", raising=False)
    machine.setenv("use_mpi", "1")
    toolchain.prepare()
    assert os.environ["use_mpi"] == "0"


def test_under_mpirun_jittor_is_given_mpi_and_a_share_of_the_cores(machine):
    for name, value in (("OMPI_COMM_WORLD_SIZE", "64"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "10000")):
        machine.setenv(name, value)
    machine.setenv("OMP_NUM_THREADS", "")  # so that it is restored
    machine.delenv("OMP_NUM_THREADS")
    machine.setattr(toolchain, "find_mpi", lambda: ("/usr/bin/mpicc", "Open MPI 4.1.4"))
    toolchain.prepare()
    assert (os.environ["use_mpi"], os.environ["OMP_NUM_THREADS"]) == ("1", "1")
    machine.setenv("OMP_NUM_THREADS", "3")
    toolchain.prepare()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_under_mpirun_without_what_jittor_needs_the_reason_is_told(machine):
    machine.setenv("OMPI_COMM_WORLD_SIZE", "2")
    machine.setattr(toolchain, "find_mpi", lambda: (None, "no mpicc found"))
    with pytest.raises(InputError, match=r"started by mpirun, but .*no mpicc found.*apt install libopenmpi-dev"):
        toolchain.prepare()


def test_processes_of_another_mpi_are_refused(machine):
    machine.delenv("OMPI_COMM_WORLD_SIZE", raising=False)
    machine.setenv("PMI_SIZE", "4")
    with pytest.raises(InputError, match=r"another MPI than Open MPI.*openmpi-bin"):
        toolchain.prepare()
    machine.setenv("PMI_SIZE", "1")
    toolchain.prepare()
