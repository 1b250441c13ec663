import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from medsegdiff.base import machine, stopping
from medsegdiff.base.errors import InputError
from medsegdiff.runtime import compilers, toolchain
from medsegdiff.runtime.backend import jt


@pytest.fixture
def utils():
    return toolchain.utilities()


def record(task):
    """Stands in for `jittor_utils.do_compile`: notes which source is compiled when."""
    command, folder, _ = task
    source = Path(shlex.split(command)[1])
    if not source.exists():
        raise RuntimeError(f"{source.name} failed")
    with (Path(folder) / "order").open("a") as file:
        file.write(f"{source.name}\n")
    time.sleep(0.01)


def test_the_largest_source_is_compiled_first(utils, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "do_compile", record)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    sizes = {"a.cc": 10, "b.cc": 1000, "c.cc": 100}
    for name, size in sizes.items():
        (tmp_path / name).write_text("x" * size)
    compilers.run_commands([f'"g++" "{tmp_path / name}" -c' for name in sizes], str(tmp_path), "")
    assert (tmp_path / "order").read_text().split() == ["b.cc", "c.cc", "a.cc"]


def test_a_failed_compilation_is_raised_and_no_process_stays(utils, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "do_compile", record)
    with pytest.raises(RuntimeError, match=r"absent\.cc failed"):
        compilers.run_commands([f'"g++" "{tmp_path / "absent.cc"}" -c'], str(tmp_path), "")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def killed(task):
    """Stands in for `jittor_utils.do_compile` whose process is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_compiling_process_that_is_killed_ends_it_with_a_line(utils, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "do_compile", killed)
    with pytest.raises(InputError, match="was killed, perhaps as memory ran out"):
        compilers.run_commands(['"g++" "a.cc" -c'] * 3, str(tmp_path), "")


def slowly(task):
    time.sleep(0.2)
    record(task)


def test_a_handler_that_jittor_left_does_not_end_it_when_a_compiler_stops_and_goes_on(utils, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "do_compile", slowly)
    start, before = compilers._start_worker, signal.signal(signal.SIGCHLD, lambda *_: pytest.fail("ended"))

    def started(*given):
        worker = start(*given)
        os.kill(worker, signal.SIGSTOP)  # as Ctrl-Z does to all
        os.kill(worker, signal.SIGCONT)
        return worker

    monkeypatch.setattr(compilers, "_start_worker", started)
    (tmp_path / "a.cc").touch()
    try:
        compilers.run_commands([f'"g++" "{tmp_path / "a.cc"}" -c'], str(tmp_path), "")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (tmp_path / "order").read_text() == "a.cc\n"


def test_processes_that_ignore_signals_are_not_waited_for(utils, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "do_compile", record)
    monkeypatch.setattr(utils, "pool_initializer", lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    (tmp_path / "a.cc").touch()
    for _ in range(20):
        compilers.run_commands([f'"g++" "{tmp_path / "a.cc"}" -c'] * 2, str(tmp_path), "")
    assert (tmp_path / "order").read_text().count("a.cc") == 40


def test_no_semaphores_are_needed(utils, tmp_path, monkeypatch):
    """As in a container without /dev/shm."""
    monkeypatch.setattr(utils, "do_compile", record)
    monkeypatch.setattr("_multiprocessing.SemLock", None)
    (tmp_path / "a.cc").touch()
    compilers.run_commands([f'"g++" "{tmp_path / "a.cc"}" -c'], str(tmp_path), "")
    assert (tmp_path / "order").read_text() == "a.cc\n"


def slow(task):
    """Stands in for `jittor_utils.do_compile`: a compiler that takes its time."""
    subprocess.run(["sleep", "300"], check=False)


@pytest.mark.parametrize("late", [False, True])
def test_a_signal_ends_the_compilers_too(utils, monkeypatch, late):
    """Though they are held back, as while Jittor is loaded, and Jittor has a handler of its own."""
    monkeypatch.setattr(utils, "do_compile", slow)
    parent, begun = os.getpid(), time.monotonic()
    if os.fork() == 0:
        time.sleep(1)
        os.kill(parent, signal.SIGTERM)
        os._exit(0)
    with pytest.raises(KeyboardInterrupt), stopping.asked([]), stopping.held_back():
        if late:
            time.sleep(2)
        signal.signal(signal.SIGTERM, lambda *_: None)  # if it were ignored, one that waits would be lost
        compilers.run_commands(['"g++" "a.cc" -c'] * 3, "", "")
    os.wait()
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(("cores", "memory", "expected"), [(8, 64e9, 8), (8, 7e9, 2), (8, 1e9, 1), (1, 64e9, 1)])
def test_there_is_memory_for_the_compilers(monkeypatch, cores, memory, expected):
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(machine, "memory", lambda: memory)
    assert compilers.count() == expected
    monkeypatch.setenv(compilers.NUMBER, "5")
    assert compilers.count() == 5


def test_jittor_compiles_as_many_kernels_at_once():
    assert jt.flags.use_parallel_op_compiler == compilers.count()


def test_nothing_to_compile_starts_nothing():
    compilers.run_commands([], "", "")


def test_jittor_looks_for_finished_kernels_every_few_milliseconds(tmp_path):
    """By itself it looks less and less often, up to once a second."""
    (source,) = Path(jt.flags.jittor_path).rglob("parallel_compiler.cc")
    command = f'"g++" "{source}" -c -o "parallel_compiler.cc.o"'
    copy = tmp_path / "medsegdiff" / source.name
    assert compilers._edited(command, tmp_path) == command.replace(str(source), str(copy))
    ours, theirs = copy.read_text().splitlines(), source.read_text().splitlines()
    assert [after for before, after in zip(theirs, ours) if before != after] == [
        "            sleep_us = std::min(sleep_us*2, 5000); // max 0.1s"
    ]
    used = Path(jt.flags.cache_path) / "medsegdiff" / source.name
    assert str(used) in (Path(jt.flags.cache_path) / "obj_files" / "parallel_compiler.cc.o.key").read_text()


def test_another_release_of_jittor_is_compiled_as_it_is(tmp_path):
    source = tmp_path / "parallel_compiler.cc"
    source.write_text("of another release")
    assert compilers._edited(f'"g++" "{source}" -c', tmp_path) == f'"g++" "{source}" -c'
