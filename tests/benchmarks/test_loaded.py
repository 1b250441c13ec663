import argparse
import os
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks import loaded
from benchmarks.loaded import Side, busy, measure, table
from benchmarks.sides import Work

WORK = Work("forward", 64, 1, 32)


def test_ratios_are_of_medians_and_to_the_first_side():
    result = {
        "work": vars(WORK),
        "alone": {"torch": [0.1, 0.1, 9.0], "ours": [0.05, 0.05, 0.05]},
        "loaded": {"torch": [0.2, 0.4, 0.3], "ours": [0.9, 0.1, 0.6]},
        "load averages": [0.5, 2.25, 1.0],
    }
    text = table(result)
    assert "width 32, batch 1; load average 0.5 to 2.2\n" in text
    assert "| torch | 100 | 1.00 | 300 | 1.00 |\n| ours | 50 | 0.50 | 600 | 2.00 |\n" in text


def test_a_side_is_a_framework_and_its_environment():
    side = Side.parse("ours,GOMP_SPINCOUNT=0,OMP_NUM_THREADS=1", "bf16")
    assert side.environment == {"GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": "1"}
    assert (side.variant.framework, side.variant.precision) == ("medsegdiff", "bf16")
    assert Side.parse("torch", "fp32").environment == {}


@pytest.mark.parametrize("text", ["jax", "ours,passive", ""])
def test_what_is_no_side_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not torch or ours"):
        Side.parse(text, "fp32")


def test_busy_processes_compute_within_the_block_and_end_with_it(monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given: started.append(popen(*given)) or started[-1])
    with pytest.raises(KeyError), busy(2):
        until = time.monotonic() + 60
        while time.monotonic() < until and min(map(processor_ticks, started)) == 0:
            time.sleep(0.05)
        assert [process.poll() for process in started] == [None, None]
        assert min(map(processor_ticks, started)) > 0
        raise KeyError
    assert all(process.poll() is not None for process in started)


def processor_ticks(process):
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])


class FakeWorker:
    """A worker that takes a second for each busy process, and must not be asked while it is stopped."""

    busy = 0
    log: ClassVar = []

    def __init__(self, framework, threads, environment):
        self.name, self.awake = framework, True
        self.log.append((framework, threads, environment))

    def seconds(self, variant, work):
        assert self.awake
        return 1.0 + self.__class__.busy

    def stop(self):
        self.awake = False

    def go_on(self):
        self.awake = True

    def close(self):
        self.log.append(f"{self.name} closed")


def test_all_take_turns_alone_and_beside_others_each_in_its_environment(monkeypatch):
    class Busy:
        def __init__(self, count):
            self.count = count

        def __enter__(self):
            FakeWorker.busy = self.count

        def __exit__(self, *_):
            FakeWorker.busy = 0

    monkeypatch.setattr(loaded, "Worker", FakeWorker)
    monkeypatch.setattr(loaded, "busy", Busy)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9, 9))
    FakeWorker.log.clear()
    sides = [Side.parse(text, "fp32") for text in ("torch", "ours,OMP_NUM_THREADS=1,GOMP_SPINCOUNT=0")]
    result = measure(sides, WORK, argparse.Namespace(threads=8, busy=3, rounds=2, repeats=2))
    for load, seconds in (("alone", 1.0), ("loaded", 4.0)):
        assert result[load] == {side.variant.name: [seconds, seconds] for side in sides}
    assert result["load averages"] == [0.5, 0.5]
    assert FakeWorker.log == [
        ("torch", 8, {"OMP_NUM_THREADS": "8"}),
        ("medsegdiff", 1, {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}),
        "medsegdiff closed",
        "torch closed",
    ]
