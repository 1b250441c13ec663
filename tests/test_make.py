"""What the targets of `make` do first on a fresh machine: the environment, with stand-ins for Python."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def made(tmp_path):
    """Makes an environment with a Python that runs `script`; returns what `make` did and what Python was asked."""

    def make(script):
        python, asked = tmp_path / "python", tmp_path / "asked"
        python.write_text(f'#!/bin/sh\necho "$*" >>"{asked}"\n{script}\n')
        python.chmod(0o755)
        words = ["make", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", f"{tmp_path / 'venv'}/.installed"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        return done, asked.read_text().splitlines()

    return make


def test_pip_is_one_that_installs_what_stays_editable(made):
    done, asked = made('case $2 in venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";; esac')
    assert done.returncode == 0, done.stderr
    assert [words.rsplit(" ", 1)[1] for words in asked if " pip install " in words] == ["pip>=21.3", "."]


def test_a_python_that_jittor_does_not_run_on_is_refused_at_once(made, tmp_path):
    done, asked = made("exit 1")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'python'}: not found, or not 3.9 to 3.12")
    assert len(asked) == 1 and not (tmp_path / "venv").exists()
