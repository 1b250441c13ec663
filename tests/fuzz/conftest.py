"""What every case must keep: it ends within a minute, and takes less than 2 GB of memory.

On a machine that does much else MEDSEGDIFF_FUZZ_SECONDS=600 gives them longer.
"""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

LONGEST = int(os.environ.get("MEDSEGDIFF_FUZZ_SECONDS", "60"))
MOST_MEMORY = 2_000_000  # kB
STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak():
    """kB of memory that this process had at most since the peak was forgotten."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[1])


def too_long(*_):
    raise TimeoutError(f"a case took more than {LONGEST} seconds")


@pytest.fixture(autouse=True)
def bounded():
    with contextlib.suppress(OSError):  # other tests' peak; in some containers it cannot be forgotten
        REFERENCES.write_text("5")
    held = peak()  # for the tests that this process ran before
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert peak() - held < MOST_MEMORY
