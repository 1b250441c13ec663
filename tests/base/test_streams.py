from __future__ import annotations

import subprocess
import sys

import pytest

from medsegdiff.base import streams


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_printed_never_lands_in_a_file(tmp_path, closed):
    code = "import os, sys; from medsegdiff.base import streams; streams.secure(); file = open('f', 'w'); "
    code += "print('out'); print('err', file=sys.stderr); os.write(1, b'1'); os.write(2, b'2'); sys.stdin.read()"
    command = ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f").read_text() == ""


@pytest.mark.parametrize("nowhere", ["2>/dev/full", "2> >(true)", "2>&-"])
def test_what_cannot_be_said_on_standard_error_ends_nothing(nowhere):
    code = "import sys, time, warnings; from medsegdiff.base import streams; streams.secure(); time.sleep(0.2); "
    code += "warnings.warn('x'); [print('x' * 9999, file=sys.stderr, flush=True) for _ in range(9)]; print('done')"
    command = ["bash", "-c", f'exec "$0" -c "$1" {nowhere}', sys.executable, code]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_a_full_stream_is_told_once_and_then_leads_nowhere():
    with open("/dev/full", "w") as stream:  # noqa: PTH123
        stream.write("x")
        assert streams.refusal(stream).strerror == "No space left on device"
        assert streams.refusal(stream) is None
