import os
import subprocess
import sys

import pytest

from medsegdiff.runtime import threads, toolchain

TOO_MANY = "must be at most 4096; give the number of cores, or unset it"
IGNORED = "is not a value that OpenMP knows, and would be ignored; correct or unset it"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        *((bad, f"{bad}: {IGNORED}\n") for bad in ("OMP_NUM_THREADS=0", "OMP_WAIT_POLICY=lazy", "GOMP_SPINCOUNT=x")),
        *((bad, f"{bad}: {IGNORED}\n") for bad in ("OMP_SCHEDULE=abc", "OMP_PLACES=z")),
        *((good, "") for good in ("OMP_NUM_THREADS=4,2", "OMP_WAIT_POLICY=ACTIVE", "GOMP_SPINCOUNT=30k")),
        ("OMP_NUM_THREADS= ", ""),
        ("OMP_NUM_THREADS=4096", ""),
        *((f"OMP_NUM_THREADS={n}", f"OMP_NUM_THREADS={n}: {TOO_MANY}\n") for n in ("4097", "99999999", "4000000000")),
    ],
)
def test_what_libgomp_would_complain_of_is_refused(setting, said):
    code = "from medsegdiff.runtime import threads\ntry: threads.prepare()\nexcept Exception as e: print(e)"
    name, _, value = setting.partition("=")
    environment = {**os.environ, name: value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, threads._SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing", "a number of spins", "a policy, which a number of spins would override"],
)
def test_threads_wait_asleep_unless_the_user_says_how(machine, own, spins):
    machine.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    for name, value in own.items():
        machine.setenv(name, value)
    toolchain.prepare()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ.get("OMP_WAIT_POLICY") == own.get("OMP_WAIT_POLICY")


@pytest.mark.parametrize(("load", "spins"), [(5.9, threads._SPINS), (6.1, threads._FEW_SPINS)])
def test_threads_wait_less_where_cores_are_scarce(machine, load, spins):
    machine.setattr(os, "cpu_count", lambda: 4)
    machine.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    toolchain.prepare()
    assert os.environ["GOMP_SPINCOUNT"] == spins


def test_a_quota_limits_the_threads_unless_the_user_says_how_many(machine):
    machine.setattr(toolchain.machine, "allowed_cores", lambda: 64)
    machine.setattr(toolchain.machine, "quota", lambda: 64)
    toolchain.prepare()
    assert "OMP_NUM_THREADS" not in os.environ  # child processes may have other cores
    machine.setattr(toolchain.machine, "quota", lambda: 1.5)
    toolchain.prepare()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    machine.setenv("OMP_NUM_THREADS", "3")
    toolchain.prepare()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_jittors_libgomp_does_as_it_is_told():
    command = (
        "import ctypes, os; from medsegdiff.base import machine; machine.allowed_cores = lambda: 64\n"
        "os.getloadavg = lambda: (0.0, 0.0, 0.0)\n"
        "machine.quota = lambda: 3\nfrom medsegdiff.runtime.backend import jt\n"
        "print(ctypes.CDLL('libgomp.so.1').omp_get_max_threads())"
    )
    settings = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert f"GOMP_SPINCOUNT = '{threads._SPINS}'" in done.stderr
