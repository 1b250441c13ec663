import math
import os
import pwd
from pathlib import Path

import pytest

from medsegdiff.base import machine
from medsegdiff.base.errors import InputError


def test_a_processor_is_described():
    text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_bf16\n\nmodel name\t: Other\n"
    assert machine.describe(text) == ("Some CPU @ 2 GHz", {"fpu", "avx2", "avx512_bf16"})


def test_an_arm_processor_has_features_and_no_name():
    found = machine.describe("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert found.model
    assert found.flags == {"fp", "asimd", "bf16"}


@pytest.mark.parametrize("there", [True, False])
def test_it_is_read_where_the_system_tells(tmp_path, monkeypatch, there):
    file = tmp_path / "cpuinfo"
    if there:
        file.write_text("model name\t: X\nflags\t\t: fpu\n")
    monkeypatch.setattr(machine, "_CPUINFO", file)
    machine.cpu.cache_clear()
    found = machine.cpu()
    machine.cpu.cache_clear()
    assert found.flags == ({"fpu"} if there else set())
    assert found.model == "X" if there else found.model


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Sixty-four cores, and control groups: a function that writes their files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_ALL_GROUPS", tmp_path / "all")

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            file = tmp_path / "all" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)

    return write


@pytest.mark.parametrize(
    ("own", "files", "quota", "cores"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1, 1),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5, 3),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 0.2, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf, 64),
        ("0::/\n", {"cpu.max": "12800000 100000\n"}, 128, 64),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2, 2),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 4, 4),
        ("4:memory:/m\n3:cpu,cpuacct:/a\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "100000\n"}, 2, 2),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n"}, math.inf, 64),
        ("3:cpuset:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000\n"}, math.inf, 64),
        ("3:cpu:/docker/1f\n", {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3, 3),
        ("0::/\n", {}, math.inf, 64),
        ("\n0::/a\nrubbish\n", {"a/cpu.max": "50000 0\n"}, math.inf, 64),
    ],
    ids=[
        "one core",
        "a part of a core is rounded up",
        "less than a core",
        "no limit",
        "more than there are cores",
        "that of the group above",
        "the lower of two",
        "version 1",
        "version 1 without a limit",
        "another controller's group",
        "a path of the host's",
        "no such file",
        "lines and a period that mean nothing",
    ],
)
def test_a_containers_quota_limits_the_cores(groups, own, files, quota, cores):
    groups(own, **{"cpu/a/cpu.cfs_period_us": "50000\n", **files})
    assert machine.quota() == quota
    assert machine.usable_cores() == cores
    assert machine.allowed_cores() == 64


def test_without_control_groups_the_cores_count(groups):
    assert machine.quota() == math.inf
    assert machine.usable_cores() == 64


@pytest.mark.parametrize(
    ("system", "processor", "remedy"),
    [("Windows", "AMD64", "WSL 2"), ("Darwin", "arm64", "container"), ("Linux", "aarch64", "container")],
)
def test_another_system_is_refused(monkeypatch, system, processor, remedy):
    machine.check_system()
    monkeypatch.setattr(machine.platform, "system", lambda: system)
    monkeypatch.setattr(machine.platform, "machine", lambda: processor)
    with pytest.raises(InputError, match=f"{system} on {processor}: Jittor runs on Linux on x86-64; .*{remedy}"):
        machine.check_system()


@pytest.mark.parametrize(
    ("own", "files", "gigabytes"),
    [
        ("0::/a\n", {"memory.max": "max\n", "a/memory.max": "4000000000\n"}, 4),
        ("0::/a\n", {"memory.max": "3000000000\n", "a/memory.max": "max\n"}, 3),
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "2000000000\n"}, 2),
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 64),
        ("0::/\n", {}, 64),
    ],
)
def test_a_containers_limit_is_its_memory(groups, monkeypatch, own, files, gigabytes):
    groups(own, **files)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 64_000_000}.get)
    assert machine.memory() == gigabytes * 1e9


def test_home_without_a_variable(monkeypatch):
    monkeypatch.setenv("HOME", "")
    assert machine.home() == Path(pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(InputError, match="HOME: is not set, and this user has no home folder; set HOME"):
        machine.home()
    monkeypatch.setenv("HOME", "/a")
    assert machine.home() == Path("/a")
