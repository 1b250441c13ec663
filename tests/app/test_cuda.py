import pytest

from medsegdiff.app import cuda
from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.runtime import toolchain
from medsegdiff.runtime.cuda import prepare, toolkit


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with CUDA but no GPU."""
    import medsegdiff.kernels.cpu.convolution  # noqa: F401 (else it would look for oneDNN in the home below, for ever)

    monkeypatch.setattr(toolchain, "jittor_home", lambda: tmp_path)
    monkeypatch.setattr(toolchain, "find_cuda", lambda: (None, "no NVIDIA driver (libcuda)"))
    return monkeypatch


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--check-gpu"], "no usable GPU: no NVIDIA driver (libcuda)"),
        (["--cuda-arch", "90"], "give it with --prepare-cuda"),
        (["--prepare-cuda", "--cuda-arch", "9"], "--cuda-arch 9: must be a compute capability times ten"),
        (["--prepare-cuda", "--cuda-arch", "9.0"], "--cuda-arch"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(capsys, words, said):
    assert main(["doctor", *words]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_without_nvcc_there_is_nothing_to_prepare(machine, capsys):
    machine.setattr(toolkit, "find", lambda: None)
    assert main(["doctor", "--prepare-cuda"]) == 2
    assert "no CUDA compiler (nvcc) found; install CUDA: pip install" in capsys.readouterr().err


def test_another_jittor_is_refused(machine, capsys):
    machine.setattr(toolchain, "package_version", lambda name: "1.3.12.0")
    assert main(["doctor", "--prepare-cuda", "--cuda-arch", "90"]) == 2
    assert "pip install jittor==1.3.11.0" in capsys.readouterr().err


def test_preparation_tells_how_it_goes(machine, capsys, tmp_path):
    def stand_in(home, version, arch, say):
        assert (home, arch) == (tmp_path, 90)
        say("compiling")
        return tmp_path / "copy"

    machine.setattr(prepare, "prepare", stand_in)
    assert main(["doctor", "--prepare-cuda", "--cuda-arch", "90"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "compiling"
    assert str(tmp_path / "copy") in said[1]
    assert "nothing was computed on one yet" in said[1]


def test_where_there_is_a_gpu_preparation_ends_with_the_check(machine, capsys, tmp_path):
    machine.setattr(prepare, "prepare", lambda *arguments: tmp_path)
    machine.setattr(toolchain, "find_cuda", lambda: ("nvcc", "CUDA 13.0"))
    machine.setattr(cuda, "check", lambda: 1)
    assert main(["doctor", "--prepare-cuda"]) == 1


def test_removal(capsys):
    assert main(["doctor", "--remove-cuda"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_an_operation_that_is_wrong_fails_the_check(machine, capsys):
    from medsegdiff.doctor import device_check

    right, wrong = (device_check.Outcome(name, 1e-6, gradient) for name, gradient in (("sine", 1e-6), ("tan", 1e-3)))
    machine.setattr(device_check, "check_device", lambda: iter([right]))
    assert cuda.check() == 0
    assert capsys.readouterr().out.endswith("all right\n")
    machine.setattr(device_check, "check_device", lambda: iter([right, wrong]))
    assert cuda.check() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("ok ")
    assert lines[2].startswith("WRONG ")
    assert lines[3] == "wrong: tan"


def test_the_kind_of_gpu_alone_says_nothing():
    options = type("Options", (), {"cuda_arch": 90, "prepare_cuda": False})
    with pytest.raises(InputError):
        cuda.is_asked_for(options)
