from __future__ import annotations

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from medsegdiff.app.cli import main
from medsegdiff.base import machine
from medsegdiff.doctor import diagnosis
from medsegdiff.inference import backends
from medsegdiff.runtime import toolchain
from medsegdiff.runtime.cuda import toolkit
from tests.runtime.cuda.fakes import fake_cuda, fake_cudnn
from tests.runtime.gaps import GAPS

REMEDIES = {
    "pip install",
    "apt install",
    "install ",
    "make an environment",
    "free some",
    "prefer",
    "fix ",
    "choose",
    "prepare",
    "to train, use",
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """This machine, where Jittor never started, with a driver for CUDA 13 and CUDA 13."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(toolchain, "jittor_home", lambda: home)
    monkeypatch.setitem(sys.modules, "jittor_utils", SimpleNamespace(cache_path=str(home)))
    fake_cudnn(tmp_path / "cuda")
    cuda = toolkit.describe(fake_cuda(tmp_path / "cuda"))
    monkeypatch.setattr(toolkit, "find", lambda: cuda)
    monkeypatch.setattr(toolkit, "driver_version", lambda: (13, 0))


ANYWHERE = ["System", "Python", "ONNX", "CPU", "Threads"]


def examine(capsys, wanted=tuple(diagnosis._LOOKS)) -> tuple[int, dict[str, str]]:
    """Run the command: its exit code, and its lines by the item they are about."""
    code = main(["doctor"])
    said = capsys.readouterr()
    assert said.err == ""
    lines = {line.split()[1]: line for line in said.out.split("\n\n")[0].splitlines()}
    assert list(lines) == list(wanted)
    for line in lines.values():
        assert line.startswith("ok ") or any(remedy in line for remedy in REMEDIES), line
    return code, lines


def test_this_machine_is_ready(capsys):
    code, lines = examine(capsys)
    assert code == 0
    assert not [line for line in lines.values() if line.startswith("required ")]
    cxx = toolchain.compiler()
    said = subprocess.run([cxx, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    assert f"{said}, {cxx}" in lines["g++"]
    assert f"{machine.usable_cores()} of " in lines["Threads"]
    assert "the first start copies it" in lines["oneDNN"]
    assert "medsegdiff doctor --warm compiles the core now" in lines["Cache"]


@pytest.mark.parametrize("gap", GAPS)
def test_a_required_gap_fails(gap, monkeypatch, tmp_path, capsys):
    make, name, words = GAPS[gap]
    monkeypatch.setitem(diagnosis._LOOKS, diagnosis.ONNX, lambda: diagnosis.Finding("ONNX", "missing", "install it"))
    (tmp_path / "gap").mkdir()
    make(monkeypatch, tmp_path / "gap")
    code, lines = examine(capsys, ANYWHERE if gap == "Python 3.13" else diagnosis._LOOKS)
    assert code == 1
    assert lines[name].startswith("required ")
    assert words in lines[name]


@pytest.mark.parametrize("gap", GAPS)
def test_onnx_runtime_does_instead_of_jittor_but_for_training(gap, monkeypatch, tmp_path, capsys):
    make, name, _ = GAPS[gap]
    (tmp_path / "gap").mkdir()
    make(monkeypatch, tmp_path / "gap")
    found = diagnosis.Finding("ONNX", "ONNX Runtime 1.32.0")
    monkeypatch.setitem(diagnosis._LOOKS, diagnosis.ONNX, lambda: found)
    assert main(["doctor"]) == 0
    assert f"ready to segment, with ONNX Runtime; not to train: {name}" in capsys.readouterr().out
    assert main(["doctor", "--warm"]) == 1


def test_what_onnx_runtime_lacks_is_said(monkeypatch, capsys):
    monkeypatch.setattr(backends, "is_installed", lambda name: not name.startswith("onnxr"))
    lines = examine(capsys)[1]
    assert lines["ONNX"].startswith("optional ")
    # By its own name it may bring a NumPy 2.
    assert "missing: onnxruntime; " in lines["ONNX"] and "pip install 'medsegdiff-jittor[onnx]'" in lines["ONNX"]


def test_onnx_runtime_may_have_another_name(monkeypatch, capsys):
    monkeypatch.setattr(toolchain, "package_version", lambda name: None if name.startswith("onnxr") else "1.26.4")
    monkeypatch.setattr(backends, "is_installed", lambda name: True)
    assert examine(capsys)[1]["ONNX"].startswith("ok ")


def test_another_system_is_said(monkeypatch, capsys):
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    lines = examine(capsys, wanted=ANYWHERE)[1]
    assert lines["System"].startswith("required ")
    assert "Darwin on x86_64, where Jittor does not run; to train, use a machine or container with" in lines["System"]


def test_an_optional_gap_does_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("cc_path", shutil.which("g++"))
    monkeypatch.delenv("mpicc_path", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, lines = examine(capsys)
    assert code == 0
    assert lines["MPI"].startswith("optional ")
    assert "no mpicc found; one process only; for several processes, install Open MPI" in lines["MPI"]
    assert "falls back to the CPU; for a GPU, prepare it: medsegdiff doctor --prepare-cuda" in lines["CUDA"]


@pytest.fixture
def unusable(monkeypatch):
    monkeypatch.setattr(toolchain, "find_cuda", lambda: (None, "reason"))
    return monkeypatch


def test_without_cuda_no_cudnn_is_asked_for(unusable, capsys):
    unusable.setattr(toolkit, "find", lambda: None)
    lines = examine(capsys)[1]
    assert lines["cuDNN"].startswith("ok ")
    assert "unusable: reason; falls back to the CPU" in lines["CUDA"]
    assert "install CUDA: pip install 'cuda-toolkit[nvcc," in lines["CUDA"]


def test_missing_parts_of_cuda_are_named(unusable, capsys, tmp_path):
    (tmp_path / "cuda/include/cudnn.h").unlink()
    (tmp_path / "cuda/lib64/libcufft.so.13").unlink()
    lines = examine(capsys)[1]
    assert "pip install 'cuda-toolkit[cufft]==13.0.*' 'nvidia-cudnn-cu13==9.*'" in lines["CUDA"]


def test_an_older_cuda_is_not_prepared(unusable, capsys, tmp_path):
    old = toolkit.describe(fake_cuda(tmp_path / "old", "11.8"))
    unusable.setattr(toolkit, "find", lambda: old)
    assert "install a CUDA 12 or 13 toolkit" in examine(capsys)[1]["CUDA"]


@pytest.mark.parametrize("newest", [None, (12, 4)])
def test_a_driver_is_asked_for(unusable, capsys, newest):
    unusable.setattr(toolkit, "driver_version", lambda: newest)
    lines = examine(capsys)[1]
    assert "install a driver for CUDA 13 or newer" in lines["CUDA"]
    assert ("no NVIDIA driver" in lines["GPU"]) == (newest is None)


def test_the_gpu_is_named(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 9.0'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnosis._gpu().text == "NVIDIA H100, 9.0; the driver runs CUDA up to 13.0"
    smi.unlink()
    assert diagnosis._gpu().text == "kind unknown: nvidia-smi does not tell; the driver runs CUDA up to 13.0"


def test_a_full_disk(monkeypatch, capsys):
    monkeypatch.setattr(diagnosis, "_LEAST_FREE", 2**62)
    code, lines = examine(capsys)
    assert code == 0
    assert "little space" in lines["Cache"]


def test_a_look_that_fails_is_a_finding(monkeypatch, capsys):
    """Jittor's helpers raise at their import where there is no compiler."""
    monkeypatch.setitem(sys.modules, "jittor_utils", None)
    lines = examine(capsys)[1]
    assert lines["Cache"].startswith("required ")
    assert "cannot be examined" in lines["Cache"]


def test_jittor_itself_is_not_imported():
    code = "import sys; from medsegdiff.app.cli import main; main(['doctor']); sys.exit('jittor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_instruction_sets_are_read(monkeypatch):
    flags = frozenset("fpu avx2 avx512f avx512_bf16 amx_tile".split())
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu("Some CPU", flags))
    assert diagnosis._cpu().text == "Some CPU: AMX, AVX512-BF16, AVX512, AVX2"
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu("Old CPU", frozenset({"fpu"})))
    assert "no AVX2" in diagnosis._cpu().text
    assert diagnosis._cpu().mark == "optional"


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        ("9.0", "fp32, bf16, fp16"),
        ("7.5", "fp32, fp16; not bf16: the GPU has compute capability 7.5 and bf16 wants 8.0 or more"),
        ("12.0", "fp32, bf16, fp16"),
        (None, "fp32; others unknown: nvidia-smi does not tell"),
    ],
)
def test_the_precisions_of_a_gpu_are_told(monkeypatch, capability, said):
    monkeypatch.setattr(toolchain, "find_cuda", lambda: ("/usr/local/cuda/bin/nvcc", "CUDA 12.2"))
    monkeypatch.setattr(toolchain, "command_version", lambda command, *rest: capability)
    assert diagnosis._precision().text == said


@pytest.mark.parametrize(
    ("flag", "large_maps", "offered"),
    [
        ("avx512_bf16", "", "fp32, bf16; not fp16"),
        ("avx512_bf16", "fp32", "fp32, bf16 (3x3 convolutions of large maps in fp32)"),
        ("avx512f", "", "fp32; not bf16: "),
    ],
)
def test_the_precisions_of_a_cpu_are_told(monkeypatch, flag, large_maps, offered):
    monkeypatch.setenv("MEDSEGDIFF_LARGE_MAPS", large_maps)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain, "find_cuda", lambda: (None, "no nvcc found"))
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu("CPU", frozenset({flag})))
    found = diagnosis._precision()
    assert found.text.startswith(offered)
    assert "; not fp16: is for GPUs" in found.text
    assert found.mark == "ok"


@pytest.fixture
def warmed(monkeypatch):
    """What is compiled for: (purpose, image size, channels), noted in place of compiling."""
    noted = []

    def noting(purpose):
        return lambda config: noted.append((purpose, config.network.image_size, config.network.num_channels))

    warmings = {purpose: noting(purpose) for purpose in ("sample", "train")}
    monkeypatch.setitem(sys.modules, "medsegdiff.doctor.warming", SimpleNamespace(WARMINGS=warmings))
    return noted


def test_warm_compiles_for_both_purposes(warmed, capsys):
    assert main(["doctor", "--warm"]) == 0
    assert warmed == [("sample", 64, 32), ("train", 64, 32), ("sample", 64, 128), ("train", 64, 128)]
    said = capsys.readouterr()
    assert "compiled sample, image size 64, 32 channels: 0 s" in said.out
    assert "compiling train, image size 64, 32 channels" in said.err


def test_warm_for_one_purpose_and_the_networks_of_files(warmed, tmp_path):
    for name, size in (("a.yaml", 32), ("b.yaml", 96)):
        (tmp_path / name).write_text(f"image_size: {size}\nnum_channels: 64\nlr: 1e-4\n")  # text to PyYAML
    networks = [str(tmp_path / name) for name in ("a.yaml", "b.yaml")]
    assert main(["doctor", "--warm", "sample", "--networks", *networks]) == 0
    assert warmed == [("sample", 32, 64), ("sample", 96, 64)]


def test_without_warm_nothing_is_compiled(warmed):
    assert main(["doctor"]) == 0
    assert warmed == []


def test_a_machine_that_lacks_something_is_not_warmed(warmed, monkeypatch, tmp_path):
    GAPS["no oneDNN"][0](monkeypatch, tmp_path)
    assert main(["doctor", "--warm"]) == 1
    assert warmed == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--warm", "bake"], "--warm bake: must be sample or train"),
        (["--warm", "--networks", "{}/absent.yaml"], "absent.yaml: no such file of options"),
        (["--warm", "--networks", "{}/list.yaml"], "list.yaml: holds no options"),
        (["--warm", "--networks", "{}/size.yaml"], "size.yaml: image_size 33: must be divisible by 32"),
        (["--warm", "--networks", "{}/broken.yaml"], "broken.yaml: is no file of options"),
        (["--warm", "--networks", "{}/text.yaml"], "text.yaml: image_size large: must be a whole number"),
        (
            ["--warm", "--networks", "{}/number.yaml"],
            "number.yaml: attention_resolutions 16: must be text; in YAML put",
        ),
        (["--warm", "--networks", "{}/typo.yaml"], "typo.yaml: image_siz: no such option of a training; did you mean"),
    ],
)
def test_bad_input_is_one_line(words, said, warmed, tmp_path, capsys):
    files = {
        "list": "[1, 2]",
        "size": "image_size: 33",
        "broken": "image_size: [",
        "text": "image_size: large",
        "number": "attention_resolutions: 16",
        "typo": "image_siz: 64",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert main(["doctor", *(word.format(tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert warmed == []
