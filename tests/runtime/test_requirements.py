from pathlib import Path

import pytest
from packaging.requirements import Requirement

from medsegdiff.base.errors import InputError
from medsegdiff.runtime import requirements, toolchain
from medsegdiff.runtime.cuda import toolkit
from tests.runtime.gaps import GAPS


@pytest.fixture
def unstarted(monkeypatch, tmp_path):
    """As where Jittor never started: nothing of oneDNN was laid down yet."""
    monkeypatch.setattr(toolchain, "jittor_home", lambda: tmp_path / "home")
    return monkeypatch


def test_this_machine_fits(unstarted, tmp_path):
    requirements.check()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("gap", GAPS)
def test_what_is_missing_is_named_with_the_remedy(unstarted, tmp_path, gap):
    make, name, words = GAPS[gap]
    (tmp_path / "gap").mkdir()
    make(unstarted, tmp_path / "gap")
    with pytest.raises(InputError) as caught:
        requirements.check()
    assert str(caught.value).startswith(f"{name}: ")
    assert words in str(caught.value)


def test_the_headers_are_found_where_they_are(unstarted, tmp_path):
    (tmp_path / "gap").mkdir()
    GAPS["no Python.h"][0](unstarted, tmp_path / "gap")
    (tmp_path / "gap" / "Python.h").touch()
    assert toolchain.find_python_header() == tmp_path / "gap" / "Python.h"


@pytest.mark.parametrize(("name", "tried"), [("g++-15", True), ("x86_64-linux-gnu-g++", True), ("c++", False)])
def test_another_compiler_than_gcc_is_said_to_be_untried(unstarted, tmp_path, name, tried):
    compiler = tmp_path / name
    compiler.write_text("#!/bin/sh\necho 15.2.0\n")
    compiler.chmod(0o755)
    unstarted.setenv("cc_path", str(compiler))
    (found,) = (look() for one, look, _ in requirements.REQUIREMENTS if one == "g++")
    assert found.fits and ("untried" in found.detail) != tried


def test_clang_which_cannot_compile_jittor_is_refused_at_once(unstarted, tmp_path):
    compiler = tmp_path / "clang++-19"
    compiler.write_text("#!/bin/sh\necho clang version 19.1.7\n")
    compiler.chmod(0o755)
    unstarted.setenv("cc_path", str(compiler))
    with pytest.raises(InputError, match=r"g\+\+: 19.1.7, .*/clang\+\+-19, which refuses Jittor's own sources"):
        requirements.check()


@pytest.mark.parametrize("driver", [None, (13, 0)])
def test_onednn_can_be_left_out_where_there_is_a_gpu(unstarted, tmp_path, driver):
    GAPS["no oneDNN"][0](unstarted, tmp_path)
    unstarted.setenv("use_mkl", "0")
    unstarted.setattr(toolkit, "driver_version", lambda: driver)
    if driver is None:
        with pytest.raises(InputError, match="oneDNN: missing"):
            requirements.check()
    else:
        requirements.check()
        toolchain._prepare_onednn()
        assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("system", "processor", "python", "runs"),
    [
        ("linux", "x86_64", "3.9", True),
        ("linux", "x86_64", "3.12", True),
        ("linux", "x86_64", "3.13", False),
        ("linux", "aarch64", "3.12", False),
        ("darwin", "arm64", "3.12", False),
        ("darwin", "x86_64", "3.12", False),
        ("win32", "AMD64", "3.12", False),
    ],
)
def test_jittor_and_its_numpy_are_installed_only_where_it_runs(system, processor, python, runs):
    tomllib = pytest.importorskip("tomllib", reason="Python has it from 3.11 on")
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    here = {"sys_platform": system, "platform_machine": processor, "python_version": python, "extra": ""}
    asked = map(Requirement, project["dependencies"])
    left = {one.name: str(one.specifier) for one in asked if one.marker is None or one.marker.evaluate(here)}
    assert {"jittor", "onednn-cpu-gomp", "onednn-devel-cpu-gomp"} & set(left) == (
        {"jittor", "onednn-cpu-gomp", "onednn-devel-cpu-gomp"} if runs else set()
    )
    assert ("<2" in left["numpy"]) == runs
    assert "Pillow" in left
