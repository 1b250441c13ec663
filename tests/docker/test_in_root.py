"""The Dockerfile's steps, one after another, as they are run where there is no Docker."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/in_root.py"


@pytest.fixture
def in_root():
    spec = importlib.util.spec_from_file_location("in_root", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stage_begins_with_the_steps_of_the_one_below(in_root):
    (release, below), (same, above) = in_root.steps("cpu"), in_root.steps("cuda")
    assert release == same == "bookworm" and above[: len(below)] == below
    assert "cuda13" in " ".join(rest for _, rest in above[len(below) :])


def test_each_step_runs_in_the_root_and_the_words_last(in_root, monkeypatch, tmp_path):
    ran = []

    def run(command, **_):
        ran.append(command)
        return SimpleNamespace(returncode=0, stdout=b"")

    monkeypatch.setattr(in_root, "prepare", lambda root, release: root.mkdir())
    monkeypatch.setattr(in_root.subprocess, "run", run)
    root = tmp_path / "root"
    assert in_root.main([str(root), "cpu", "doctor"]) == 0
    inside = [command for command in ran if str(root) in command and "unshare" in command]
    assert len(inside) == 1 + sum(word == "RUN" for word, _ in in_root.steps("cpu")[1])
    # Found by the PATH of this machine: the image's has no /usr/sbin, where chroot is.
    assert all("PATH=" not in word for command in inside for word in command[: command.index(str(root))])
    assert inside[-1][-2:] == ["medsegdiff", "doctor"]
    assert {"JITTOR_HOME=/cache", "PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"} <= set(inside[-1])
