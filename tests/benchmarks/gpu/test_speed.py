from types import SimpleNamespace

import pytest

from benchmarks import sides
from benchmarks.gpu import speed
from benchmarks.sides import Variant, Work

WORKS = (Work("step", 64, 16, 128), Work("step", 64, 8, 128))
VARIANTS = (
    Variant("compiled", "medsegdiff", "fp32", compiled=True),
    Variant("plain", "medsegdiff", "fp32"),
    Variant("breaks", "medsegdiff", "bf16"),
)


class Worker:
    started = closed = 0

    def __init__(self, framework, threads):
        Worker.started += 1

    def seconds(self, variant, work):
        if variant.name == "breaks":
            raise EOFError("its process is gone")
        return work.batch / 100

    def peak(self):
        return 3 << 20

    def forget(self):
        pass

    def close(self):
        Worker.closed += 1


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.setattr(speed, "Worker", Worker)
    monkeypatch.setattr(Worker, "started", 0)
    monkeypatch.setattr(Worker, "closed", 0)

    def run(known=()):
        plan = SimpleNamespace(works=WORKS, variants=VARIANTS, rounds=3)
        job = SimpleNamespace(visit=SimpleNamespace(plan=plan), known=lambda name: name in known)
        return {row["name"]: row for row in speed.speed(job)}

    return run


def test_what_compiles_for_minutes_is_last_and_what_is_known_is_left_out(measure):
    first = "64 px, batch 16, width 128: plain"
    names = [name.split(": ")[1] for name in measure()]
    assert names == ["plain", "breaks", "plain", "breaks", "compiled", "compiled"]
    assert first not in measure(known=(first,))


def test_a_process_that_breaks_is_replaced(measure):
    rows = measure()
    assert rows["64 px, batch 8, width 128: plain"]["ms"] == pytest.approx(80)
    assert rows["64 px, batch 8, width 128: plain"]["peak_MiB"] == 3
    assert "EOFError" in rows["64 px, batch 16, width 128: breaks"]["error"]
    assert Worker.started == Worker.closed == 3


def test_convolutions_by_graphs_take_the_place_of_the_others(monkeypatch):
    from medsegdiff.kernels.cuda import convolution

    monkeypatch.setattr(convolution, "_HEADER", convolution._HEADER)
    sides._by_graphs()
    assert convolution._HEADER.count("cudnnBackendExecute") == 1
    assert "cudnnConvolutionForward" not in convolution._HEADER
    assert convolution._HEADER.count("inline void convolve(") == 1
