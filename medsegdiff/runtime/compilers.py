"""Compilers run side by side, for Jittor's core, in processes that end with this one.

By itself Jittor runs one for each 3 GB of memory, whatever the number of cores.

Nothing here imports Jittor.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.base import machine, ranks, screen, stopping
from medsegdiff.base.errors import InputError
from medsegdiff.base.files import replacing

NUMBER = "MEDSEGDIFF_COMPILERS"
_TASK = 2  # bytes that name a task
_COMPILER = 3e9  # bytes that one may take
_HEADERS = 60_000  # bytes of source that take as long as the headers of each
EDITS = {"parallel_compiler.cc": ("std::min(sleep_us*2, 1000000)", "std::min(sleep_us*2, 5000)")}
"""Sources of Jittor's core that are changed: for each, a text and what it becomes.

Where it waits for the compilers of kernels, it looks less and less often, up to once a second, and holds its lock.
"""


def run_commands(commands: Sequence[str], cache_path: str, jittor_path: str, msg: str = "") -> None:
    """Run those compiler commands whose results are not in the cache, with a progress bar once it takes longer.

    Stands in for `jittor_utils.run_cmds`. As many at once as there are cores, and memory for, and the largest source
    first, so that it is not what the end waits for. Pipes join the processes: `multiprocessing` wants semaphores,
    which some containers lack, and waits for ever for a worker that Jittor's handlers keep from ending.

    Raises:
        InputError: one of the processes was killed.
        RuntimeError: a compiler failed.
    """

    commands = [_edited(command, Path(cache_path)) for command in sorted(commands, key=_source_size, reverse=True)]
    tasks = [(command, cache_path, jittor_path) for command in commands]
    if not tasks:
        return
    (todo, fill), (done, tell) = os.pipe(), os.pipe()
    os.write(fill, b"".join(index.to_bytes(_TASK, "little") for index in range(len(tasks))))  # a pipe holds 65536 bytes
    os.close(fill)
    what = "Jittor's core" if "jittor_core" in msg else "Jittor's operators"
    workers: list[int] = []
    if threading.current_thread() is threading.main_thread():  # only there may handlers be set
        # Jittor's ends the process where one of its children is killed, or stopped by Ctrl-Z.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with stopping.heeded(), os.fdopen(done, encoding="utf-8", errors="replace") as lines:
        try:
            workers += [_start_worker(tasks, todo, tell) for _ in range(min(count(), len(tasks)))]
            for end in (todo, tell):
                os.close(end)
            weights = [_HEADERS + _source_size(command) for command in commands]
            told = screen.track(lines, len(tasks), f"compiling {what}", "file", weights=weights)
            complaints = [line for line in told if line.strip()]
        except BaseException:
            for worker in workers:
                os.killpg(worker, signal.SIGTERM)  # compilers remove what they have half written
            raise
        finally:
            codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    if min(codes) < 0:
        raise InputError("a process that compiled was killed, perhaps as memory ran out; free some, and run this again")
    if complaints:
        raise RuntimeError(complaints[0].strip())


def count() -> int:
    """How many compilers may run at once: `$MEDSEGDIFF_COMPILERS`, else one a core, and one for each 3 GB of memory."""
    return ranks.number(NUMBER, 0) or max(1, min(machine.usable_cores(), int(machine.memory() / _COMPILER)))


def _start_worker(tasks: Sequence[Any], todo: int, tell: int) -> int:
    """Start a process, in a group of its own, that works off the tasks whose numbers it reads from the pipe `todo`.

    To the pipe `tell` it writes a line for each, which is empty where all is well. Returns the process's number.
    """
    import jittor_utils

    worker = os.fork()
    if worker:
        with contextlib.suppress(OSError):  # it may have done so itself, or have ended
            os.setpgid(worker, worker)
        return worker
    try:
        os.setpgid(0, 0)
        jittor_utils.pool_initializer()
        while number := os.read(todo, _TASK):
            jittor_utils.do_compile(tasks[int.from_bytes(number, "little")])
            os.write(tell, b"\n")
    except BaseException as error:  # a line of 4096 bytes is written at once
        os.write(tell, f"{' '.join(str(error).split()) or type(error).__name__}\n".encode(errors="replace")[-4000:])
    finally:
        os._exit(0)


def _source_size(command: str) -> int:
    try:
        return _source(command).stat().st_size
    except OSError:
        return 0


def _source(command: str) -> Path:
    return Path(shlex.split(command)[1])


def _edited(command: str, cache: Path) -> str:
    """The `command`, for a changed copy in the cache where its source is one of `EDITS` and has the text."""
    source = _source(command)
    if source.name not in EDITS:
        return command
    before, after = EDITS[source.name]
    text, copy = source.read_text(encoding="utf-8"), cache / "medsegdiff" / source.name
    if text.count(before) != 1:
        return command
    changed = text.replace(before, after)
    if not copy.exists() or copy.read_text(encoding="utf-8") != changed:
        copy.parent.mkdir(exist_ok=True)
        with replacing(copy) as beside:
            beside.write_text(changed, encoding="utf-8")
    return command.replace(f'"{source}"', f'"{copy}"', 1)
