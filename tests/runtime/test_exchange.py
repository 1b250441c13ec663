"""One process; what several do is in tests/e2e/test_mpi.py."""

import subprocess
import sys

import numpy as np

from medsegdiff.runtime import exchange


def test_alone_every_exchange_gives_back_what_it_is_given():
    values = {"a": object(), "b": object()}
    assert exchange.tell({"x": 1}) == {"x": 1}
    assert exchange.collect("x") == ["x"]
    assert exchange.total(values["a"]) is values["a"]
    assert exchange.mean(values) == values
    exchange.take_over(values.values())
    np.testing.assert_array_equal(exchange.gather(np.arange(3)), [[0, 1, 2]])


def test_nothing_of_it_imports_jittor_before_it_must():
    code = (
        "import sys; from medsegdiff.runtime import exchange as p; p.tell(1); sys.exit('jittor_utils' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


class Sized:
    def __init__(self, count):
        self.count = count

    def numel(self):
        return self.count


def test_values_go_in_few_large_pieces(monkeypatch):
    monkeypatch.setattr(exchange, "_BUCKET", 10)
    values = {"a": Sized(4), "b": Sized(6), "c": Sized(1), "d": Sized(30), "e": Sized(2)}
    assert list(exchange._buckets(values)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(exchange._buckets({})) == []
