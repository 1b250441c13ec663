import os
import subprocess
import sys

import pytest

pytest.importorskip("argcomplete", reason="argcomplete is not installed")


def completed(line):
    """What a shell is told may follow `line`."""
    shell = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    code = "import os; os.dup2(os.open('/dev/stdout', os.O_WRONLY), 8); from medsegdiff.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **shell}, capture_output=True, text=True, timeout=120
    )
    return [word.strip() for word in done.stdout.splitlines()]


def test_commands_are_completed():
    assert completed("medsegdiff ev") == ["evaluate"]
    assert {"train", "report", "help"} <= set(completed("medsegdiff "))


def test_options_and_their_choices_are_completed():
    assert completed("medsegdiff evaluate --pred") == ["--pred-path"]
    assert set(completed("medsegdiff sample --sampler ")) == {"ddpm", "ddim", "dpm++", "sde-dpm++"}
    assert "--quiet" in completed("medsegdiff train --q")


def test_actions_are_completed():
    assert completed("medsegdiff data pha") == ["phantom"]
    assert completed("medsegdiff data phantom --si") == ["--size"]
