import pytest

from benchmarks import cold


def test_phases_add_up_to_the_first_run():
    found = cold.phases(cold=(100.0, 20.0), warm=(3.0, 1.5))
    assert found == {"core": 78.5, "kernels": 18.5, "computing": 1.5, "start": 1.5}
    assert sum(found.values()) == pytest.approx(100.0)


def test_table():
    rounds = [{"core": 80.0}, {"core": 70.0}, {"core": 71.0}]
    assert cold.table(rounds).splitlines()[-1] == "| core | 71.0 | 70.0 | 80.0 |"
