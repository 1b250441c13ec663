import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import medsegdiff
from medsegdiff.base import machine
from medsegdiff.training.provenance import commit, provenance


def git(folder, *words):
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def test_what_a_reader_needs_to_know_is_there(discs, monkeypatch):
    monkeypatch.setattr("sys.argv", ["medsegdiff", "train", "--out-dir", "a b"])
    found = json.loads(json.dumps(provenance(discs)))
    assert found["versions"]["medsegdiff"] == medsegdiff.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["command"] == "medsegdiff train --out-dir 'a b'"
    assert found["dataset"] == {"fingerprint": "discs", "images": 6, "validation": []}
    assert found["machine"]["threads"] >= 1
    assert found["machine"]["memory_gib"] > 0
    assert found["machine"]["device"] in ("cpu", "cuda")


def test_the_commit_of_a_checkout_is_told_and_whether_it_was_changed(tmp_path):
    assert commit(tmp_path) is None
    try:
        git(tmp_path, "init", "--quiet")
    except FileNotFoundError:
        pytest.skip("needs git")
    file = tmp_path / "file"
    file.write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == {"commit": head, "modified": False}
    file.write_text("2")
    assert commit(tmp_path) == {"commit": head, "modified": True}


def test_git_is_waited_for_some_seconds_and_what_it_did_not_say_is_not_known(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    said, waited = {"rev-parse": (0, "abc\n"), "status": (127, "")}, []

    def completed(*command, seconds=60):
        waited.append(seconds)
        return subprocess.CompletedProcess(command, *said[command[4]])

    monkeypatch.setattr(machine, "completed", completed)
    assert commit(tmp_path) == {"commit": "abc", "modified": None}
    said["rev-parse"] = (127, "")
    assert commit(tmp_path) is None
    assert waited == [5, 5, 5]


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) is None
    assert Path(medsegdiff.__file__).exists()
