"""What every case must keep: it ends within a minute, and in less than 2 GB of memory."""

import contextlib
import re
import signal
from pathlib import Path

import pytest

LONGEST = 60  # seconds
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
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert peak() < MOST_MEMORY
