"""One process; what several do is in tests/e2e/test_mpi.py."""

import math
import os
import sys

import pytest

from medsegdiff.base import machine, ranks
from medsegdiff.base.errors import InputError


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setattr(ranks, "_GRACE", 0)


def test_a_process_alone_leads_itself():
    assert (ranks.started_together(), ranks.count(), ranks.rank()) == (False, 1, 0)


@pytest.mark.parametrize(
    ("ours", "parents", "siblings", "threads"),
    [(2, 2, 2, 1), (1, 2, 2, 1), (32, 32, 4, 8), (8, 32, 2, 8), (8, 16, 4, 4), (2, 2, 5, 1)],
    ids=["unbound", "bound to a core", "unbound, large", "bound to 8", "bound to a socket in twos", "too many"],
)
def test_threads_are_shared_fairly(ours, parents, siblings, threads, monkeypatch):
    cores = {0: ours, os.getppid(): parents}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores[process])))
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", str(siblings))
    assert ranks.fair_threads() == threads


@pytest.mark.parametrize(("quota", "threads"), [(math.inf, 4), (8.0, 4), (3.0, 1), (5.5, 2), (0.5, 1)])
def test_a_quota_is_shared_too(monkeypatch, quota, threads):
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    monkeypatch.setattr(machine, "quota", lambda: quota)
    assert ranks.fair_threads() == threads


def test_only_the_leader_speaks(capsys):
    with ranks.only_the_leader_speaks():
        print("leading")
    assert capsys.readouterr().out == "leading\n"


def test_the_others_are_silent(second_of_two, capsys):
    with ranks.only_the_leader_speaks():
        print("following")
        print("complaining", file=sys.stderr)
    assert capsys.readouterr() == ("", "")
    print("again")
    assert capsys.readouterr().out == "again\n"


def test_a_failure_alone_is_an_exit_code(capsys):
    assert ranks.fail(2, "error: so") == 2
    assert capsys.readouterr().err == "error: so\n"


def test_a_failure_of_one_of_several_ends_it_at_once(second_of_two, monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    with pytest.raises(SystemExit) as ended:
        ranks.fail(2, "error: so")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: so\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "abc"},
        {"SIZE": "2", "RANK": "-1"},
        {"SIZE": "0"},
        {"RANK": "1"},
        {"LOCAL_SIZE": ""},
        {"SIZE": "9" * 99},
    ],
)
def test_variables_that_make_no_sense_are_named(monkeypatch, capsys, variables):
    for name, value in variables.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    with (
        pytest.raises(InputError, match=r"^OMPI_COMM_WORLD_.*only mpirun should set it"),
        ranks.only_the_leader_speaks(),
    ):
        print("never")
    assert capsys.readouterr().out == ""
