import json
import shutil
import sys
from pathlib import Path

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.runtime.cuda import copies, edits, prepare, toolkit
from tests.runtime.cuda.fakes import fake_cuda, fake_cudnn

VERSION = edits.JITTOR_VERSION


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with CUDA 13.0, cuDNN and a driver, and a Python that does not really compile."""
    fake_cudnn(tmp_path / "cuda")
    monkeypatch.setenv("nvcc_path", str(fake_cuda(tmp_path / "cuda")))
    monkeypatch.setattr(toolkit, "_wheels", lambda: None)
    monkeypatch.setattr(toolkit, "_SYSTEM_HEADERS", ())
    monkeypatch.setattr(toolkit, "_SYSTEM_LIBRARIES", ())
    monkeypatch.setattr(toolkit, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(prepare, "LEAST_FREE", 0)
    installed = prepare._installed()
    for edit in edits.EDITS:  # its other files take long to copy
        (tmp_path / "jittor" / edit.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / edit.file, tmp_path / "jittor" / edit.file)
    monkeypatch.setattr(prepare, "_installed", lambda: tmp_path / "jittor")
    pretend(monkeypatch, tmp_path, 'echo "core: archs=$cuda_archs"; echo "kernel: 1 s"')
    return monkeypatch


def pretend(monkeypatch, folder, script):
    """Let the process that compiles do `script` instead, which finds the copy in `$3`."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def test_a_copy_is_made_and_found(machine, tmp_path):
    said = []
    copy = prepare.prepare(tmp_path / "home", VERSION, None, said.append)
    assert copies.prepared(tmp_path / "home", toolkit.find(), VERSION) == copy
    for edit in edits.EDITS:
        assert edit.after in (copy / "jittor" / edit.file).read_text()
    assert (copy / "cuda/lib64/libcudnn.so").exists()
    record = json.loads((copy / copies.RECORD).read_text())
    assert record == {
        "jittor": VERSION,
        "cuda": "13.0",
        "cudnn": "9.28.1",
        "nvcc": str(tmp_path / "cuda/bin/nvcc"),
        "compiled": ["core: archs=", "kernel: 1 s"],
    }
    assert said[2:4] == record["compiled"]
    assert "the installed one stays as it is" in said[0]
    assert {path.name for path in copy.parent.iterdir()} == {copy.name}


def test_it_is_made_anew_on_demand(machine, tmp_path):
    copy = prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    (copy / "jittor/compiler.py").write_text("spoilt")
    assert prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None) == copy
    assert (copy / "jittor/compiler.py").read_text() != "spoilt"


def test_the_kind_of_gpu_can_be_given(machine, tmp_path):
    machine.setattr(toolkit, "driver_version", lambda: None)
    with pytest.raises(InputError, match="cuda_arch 90"):
        prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    said = []
    prepare.prepare(tmp_path / "home", VERSION, 90, said.append)
    assert "core: archs=90" in said


def nothing_is_left(home):
    return not any(path.is_dir() for path in copies.parent(home).iterdir())


def test_a_failure_leaves_no_copy_and_says_why(machine, tmp_path):
    pretend(machine, tmp_path, 'echo "Traceback" >&2; echo "nvcc: no such flag" >&2; exit 1')
    with pytest.raises(InputError, match=r"could not be compiled: nvcc: no such flag; .*\.log tells more"):
        prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    assert nothing_is_left(tmp_path / "home")


def test_the_reason_is_told_without_colours_and_progress(tmp_path):
    log = tmp_path / "log"
    log.write_text("core: 1/9 [00:01, 2s/file]\x1b[38;5;1mno memory\x1b[m\ncore: 3/9 [00:02, 1.2file/s]\r")
    assert prepare._last_line(log) == "no memory"
    log.write_text("\n")
    assert prepare._last_line(log) == "no reason given"


def test_an_interruption_leaves_no_copy_and_no_process(machine, tmp_path):
    pretend(machine, tmp_path, f"echo $$ > {tmp_path}/pid; echo begun; exec sleep 600")

    def interrupt(line):
        if line == "begun":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(tmp_path / "home", VERSION, None, interrupt)
    assert nothing_is_left(tmp_path / "home")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_copy_that_was_ready_goes_when_its_replacement_fails(machine, tmp_path):
    prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    pretend(machine, tmp_path, "exit 1")
    with pytest.raises(InputError):
        prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    assert copies.prepared(tmp_path / "home", toolkit.find(), VERSION) is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda m, path: m.setattr(toolkit, "find", lambda: None), "no CUDA compiler .*pip install 'cuda-toolkit"),
        (lambda m, path: m.setattr(toolkit, "driver_version", lambda: (12, 4)), r"runs CUDA up to 12\.4, not 13\.0"),
        (lambda m, path: m.setattr(prepare, "LEAST_FREE", 2**62), "free some, or set JITTOR_HOME"),
        (
            lambda m, path: (path / "cuda/include/cudnn.h").unlink(),
            "lacks cudnn; install: pip install 'nvidia-cudnn-cu13==9",
        ),
        (lambda m, path: m.setenv("nvcc_path", str(fake_cuda(path / "old", "11.8"))), r"is CUDA 11\.8; .*12 and 13"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_made(machine, tmp_path, spoil, said):
    spoil(machine, tmp_path)
    with pytest.raises(InputError, match=said):
        prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    assert not copies.parent(tmp_path / "home").exists() or nothing_is_left(tmp_path / "home")


def test_another_release_of_jittor_is_refused(machine, tmp_path):
    with pytest.raises(InputError, match=r"Jittor 1\.3\.12"):
        prepare.prepare(tmp_path / "home", "1.3.12.0", None, lambda line: None)
    assert not (tmp_path / "home").exists()


def test_removal(machine, tmp_path):
    home = tmp_path / "home"
    assert not prepare.remove(home)
    copy = prepare.prepare(home, VERSION, None, lambda line: None)
    cache, other = (home / ".cache/jittor/jt1.3.11/g++/py" / name for name in (f"default-{copy.name}", "default"))
    for folder in (cache, other):
        folder.mkdir(parents=True)
    assert prepare.remove(home)
    assert not copies.parent(home).exists()
    assert (cache.exists(), other.exists()) == (False, True)


def test_the_installed_jittor_is_not_touched(machine, tmp_path):
    before = {path: path.read_bytes() for path in (tmp_path / "jittor").rglob("*.*")}
    prepare.prepare(tmp_path / "home", VERSION, None, lambda line: None)
    assert before == {path: path.read_bytes() for path in (tmp_path / "jittor").rglob("*.*")}


def test_the_installed_jittor_is_found_without_importing_it():
    assert (prepare._installed() / "compile_extern.py").is_file()
