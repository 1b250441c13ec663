"""One process; what several do is in tests/e2e/test_mpi.py."""

import os
import subprocess
import sys

import numpy as np
import pytest

from medsegdiff.runtime import processes


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(processes, "_GRACE", 0)


def test_a_process_alone_leads_itself():
    assert (processes.started_together(), processes.count(), processes.rank()) == (False, 1, 0)


def test_alone_every_exchange_gives_back_what_it_is_given():
    values = {"a": object(), "b": object()}
    assert processes.tell({"x": 1}) == {"x": 1}
    assert processes.collect("x") == ["x"]
    assert processes.total(values["a"]) is values["a"]
    assert processes.mean(values) == values
    processes.take_over(values.values())
    np.testing.assert_array_equal(processes.gather(np.arange(3)), [[0, 1, 2]])


def test_nothing_of_it_imports_jittor_before_it_must():
    code = (
        "import sys; from medsegdiff.runtime import processes as p; p.tell(1); sys.exit('jittor_utils' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("ours", "parents", "siblings", "threads"),
    [(2, 2, 2, 1), (1, 2, 2, 1), (32, 32, 4, 8), (8, 32, 2, 8), (8, 16, 4, 4), (2, 2, 5, 1)],
    ids=["unbound", "bound to a core", "unbound, large", "bound to 8", "bound to a socket in twos", "too many"],
)
def test_threads_are_shared_fairly(ours, parents, siblings, threads, monkeypatch):
    cores = {0: ours, os.getppid(): parents}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores[process])))
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(siblings))
    assert processes.fair_threads() == threads


def test_only_the_leader_speaks(capsys):
    with processes.only_the_leader_speaks():
        print("leading")
    assert capsys.readouterr().out == "leading\n"


def test_the_others_are_silent(second_of_two, capsys):
    with processes.only_the_leader_speaks():
        print("following")
        print("complaining", file=sys.stderr)
    assert capsys.readouterr() == ("", "")
    print("again")
    assert capsys.readouterr().out == "again\n"


def test_a_failure_alone_is_an_exit_code(capsys):
    assert processes.fail(2, "error: so") == 2
    assert capsys.readouterr().err == "error: so\n"


def test_a_failure_of_one_of_several_ends_it_at_once(second_of_two, monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit) as ended:
        processes.fail(2, "error: so")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: so\n"


class Sized:
    def __init__(self, count):
        self.count = count

    def numel(self):
        return self.count


def test_values_go_in_few_large_pieces(monkeypatch):
    monkeypatch.setattr(processes, "_BUCKET", 10)
    values = {"a": Sized(4), "b": Sized(6), "c": Sized(1), "d": Sized(30), "e": Sized(2)}
    assert list(processes._buckets(values)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(processes._buckets({})) == []
