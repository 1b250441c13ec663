import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import types

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.runtime import compilation, toolchain
from medsegdiff.runtime.cuda import copies, toolkit
from tests.runtime.cuda.fakes import fake_cuda, fake_cudnn, fake_nvcc


def pretend_version(monkeypatch, **versions):
    real = toolchain.package_version
    monkeypatch.setattr(toolchain, "package_version", lambda name: versions.get(name, real(name)))


def test_jittor_below_a_folder_with_a_space_is_refused_at_once(machine):
    machine.delitem(sys.modules, "jittor_utils")
    machine.setattr(
        importlib.util, "find_spec", lambda name: types.SimpleNamespace(origin=f"/my env/{name}/__init__.py")
    )
    with pytest.raises(InputError, match="/my env/jittor: Jittor cannot compile from a path with a space"):
        toolchain.prepare()


def test_a_variable_of_jittors_that_is_no_number_is_refused(machine):
    machine.delitem(sys.modules, "jittor_utils")
    machine.setenv("log_v", "much")
    with pytest.raises(InputError, match="log_v=much in the environment: must be a number"):
        toolchain.prepare()


@pytest.mark.parametrize("compiled", [False, True])
def test_compiling_is_announced_where_nothing_is_compiled_yet(machine, tmp_path, capsys, compiled):
    machine.setattr(toolchain, "utilities", lambda: types.SimpleNamespace(cache_path=str(tmp_path)))
    if compiled:
        (tmp_path / "jit").mkdir()
        (tmp_path / "jit" / "kernel.so").touch()
    toolchain.announce_kernels()
    assert capsys.readouterr().err.count("about half a minute, once\n") == (not compiled)


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


@pytest.fixture
def cuda(machine, tmp_path):
    """A machine with a driver for CUDA 13 and a CUDA toolkit, whose cuDNN the tests choose."""
    machine.setattr(toolkit, "driver_version", lambda: (13, 0))
    machine.setattr(toolkit, "_wheels", lambda: None)
    machine.setattr(toolkit, "_SYSTEM_HEADERS", ())
    machine.setattr(toolkit, "_SYSTEM_LIBRARIES", ())

    def install(version, cudnn):
        root = tmp_path / f"cuda-{version}"
        machine.setenv("nvcc_path", str(fake_cuda(root, version)))
        if cudnn:
            fake_cudnn(root, cudnn)
        return root

    return install


@pytest.mark.parametrize("version", ["11.8", "12.4"])
def test_cuda_that_jittor_knows_is_used_as_it_comes(cuda, version):
    root = cuda(version, "8.9.7")
    assert toolchain.find_cuda() == (str(root / "bin/nvcc"), f"CUDA {version}, cuDNN 8.9.7")
    assert toolchain.find_copy() is None


@pytest.mark.parametrize(("version", "cudnn"), [("12.4", "9.1.0"), ("13.0", "9.28.1")])
def test_cuda_that_jittor_does_not_know_wants_the_copy(cuda, machine, tmp_path, version, cudnn):
    root = cuda(version, cudnn)
    assert toolchain.find_cuda() == (
        None,
        f"{root}/bin/nvcc is CUDA {version} with cuDNN {cudnn}, which Jittor 1.3.11 does not know",
    )
    copy = copies.folder(tmp_path / "home", toolkit.find(), toolchain.package_version("jittor"))
    copy.mkdir(parents=True)
    (copy / copies.RECORD).touch()
    assert toolchain.find_copy() == copy
    assert toolchain.find_cuda() == (
        str(copy / "cuda/bin/nvcc"),
        f"CUDA {version}, cuDNN {cudnn}, by the prepared copy of Jittor",
    )
    pretend_version(machine, jittor="1.3.11.1")
    assert toolchain.find_copy() is None


def test_a_copy_for_a_newer_cuda_than_the_drivers_is_not_used(cuda, machine, tmp_path):
    root = cuda("13.0", "9.28.1")
    copy = copies.folder(tmp_path / "home", toolkit.find(), toolchain.package_version("jittor"))
    copy.mkdir(parents=True)
    (copy / copies.RECORD).touch()
    machine.setattr(toolkit, "driver_version", lambda: (12, 4))
    assert toolchain.find_copy() is None
    assert toolchain.find_cuda() == (None, f"{root}/bin/nvcc is CUDA 13.0, and the driver runs CUDA up to 12.4 only")


def test_nvcc_alone_is_not_used(cuda, machine, tmp_path):
    machine.setenv("nvcc_path", str(fake_nvcc(tmp_path / "alone")))
    nvcc, reason = toolchain.find_cuda()
    assert nvcc is None
    assert "without cudart, cccl, cublas, curand, cufft, cusparse, cudnn beside it" in reason


def test_without_a_driver_nothing_is_used(cuda, machine):
    cuda("12.4", "8.9.7")
    machine.setattr(toolkit, "driver_version", lambda: None)
    assert toolchain.find_cuda() == (None, "no NVIDIA driver (libcuda)")


@pytest.mark.skipif(toolchain.find_onednn() is None, reason="the oneDNN wheels are not installed")
def test_a_gpu_that_is_not_used_is_told_of(cuda, machine, capsys):
    cuda("13.0", "9.28.1")
    toolchain.prepare()
    assert "GPU not used: " in capsys.readouterr().err
    assert os.environ["nvcc_path"] == ""
    machine.setattr(toolkit, "driver_version", lambda: None)
    toolchain.prepare()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(toolchain.find_onednn() is None, reason="the oneDNN wheels are not installed")
def test_the_copy_is_put_in_front_where_there_is_one(machine, tmp_path):
    led = []
    machine.delenv("NVIDIA_TF32_OVERRIDE")
    machine.setattr(copies, "put_in_front", lambda copy, module: led.append((copy, module.__name__, platform.node())))
    machine.setenv(compilation.CACHE_KEY, "like machines")
    toolchain.prepare(tmp_path / "copy")
    assert led == [(tmp_path / "copy", "jittor_utils", "like machines")]
    assert os.environ["nvcc_path"] == str(tmp_path / "copy/cuda/bin/nvcc")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_a_copy_has_one_cache_with_and_without_a_driver(machine, cuda, tmp_path):
    """It may be compiled where there is no GPU."""
    machine.delitem(sys.modules, "jittor_utils")
    machine.setattr(importlib, "import_module", lambda name: types.SimpleNamespace(cache_path=tmp_path / "a/b"))
    cuda("13.0", "9.28.1")
    names = []
    for driver, nvcc in ((None, "nvcc"), ((13, 0), "nvcc"), ((13, 0), "")):
        machine.delenv("cache_name", raising=False)
        machine.setattr(toolkit, "driver_version", lambda driver=driver: driver)
        toolchain.utilities(nvcc)
        assert os.environ["nvcc_path"] == nvcc
        names.append(os.environ["cache_name"])
    assert names[0] == names[1] != names[2]


@pytest.mark.skipif(toolchain.find_onednn() is None, reason="the oneDNN wheels are not installed")
def test_tf32_can_be_chosen(machine):
    machine.setenv("NVIDIA_TF32_OVERRIDE", "1")
    toolchain.prepare()
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "1"


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
    for alone in ("1", "", "some"):
        machine.setenv("PMI_SIZE", alone)
        toolchain.prepare()


def test_pytorch_is_not_imported_where_there_is_one(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('imported')\n")
    command = "from medsegdiff.runtime.backend import jt; print(jt.ones(2).sum().item())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    environment.pop("FIX_TORCH_ERROR", None)
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr


def test_an_empty_home_of_jittor_is_as_none(tmp_path):
    code = "from medsegdiff.runtime.toolchain import utilities; print(utilities().cache_path)"
    environment = {**os.environ, "HOME": str(tmp_path), "JITTOR_HOME": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(tmp_path)), done.stderr
