from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from medsegdiff.base import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_noted_and_then_as_before(number):
    before, heard = signal.getsignal(number), []
    with pytest.raises(KeyboardInterrupt) as stopped, stopping.asked(heard):
        os.kill(os.getpid(), number)
    assert stopped.value.exit_code == 128 + number
    assert heard == [number]
    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_ignored():
    before, heard = signal.signal(signal.SIGHUP, signal.SIG_IGN), []
    try:
        with stopping.asked(heard):
            os.kill(os.getpid(), signal.SIGHUP)
        assert heard == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_changes_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with stopping.asked([]):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_child_has_the_system_s_handlers(number):
    with stopping.asked([]):
        child = os.fork()
        if not child:
            os._exit(signal.getsignal(number) != signal.SIG_DFL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert signal.getsignal(number) != signal.SIG_DFL


INTERRUPTED = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException as error:
                raise {raised} from error

sys.meta_path.insert(0, Finder())
sys.argv = ["medsegdiff", *{words!r}]
runpy.run_module("medsegdiff", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "raised", "words"),
    [
        ("jsonargparse", "error", ["--help"]),  # what the command line needs, in the first second
        ("medsegdiff.app.cli", "error", ["--help"]),
        ("medsegdiff.data.phantom", "error", ["data", "phantom", "--out-dir", "never"]),
        # Libraries that make something else of it, as Jittor does.
        ("medsegdiff.data.phantom", "ImportError", ["data", "phantom", "--out-dir", "never"]),
        ("medsegdiff.data.phantom", "SystemExit(1)", ["data", "phantom", "--out-dir", "never"]),
    ],
)
def test_ctrl_c_while_something_is_imported_is_one_line(tmp_path, module, raised, words):
    code = INTERRUPTED.format(module=module, raised=raised, words=words)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "stopped\n")
    assert list(tmp_path.iterdir()) == []


AMID_IMPORTS = """
import ctypes, sys, threading, time
from medsegdiff.base import stopping

press = ctypes.PyDLL(None).PyErr_SetInterrupt  # Ctrl-C, as if it came where the traced code is
press.argtypes, press.restype = [ctypes.py_object] * 3, None

def at(frame, event, _):
    inside = frame.f_code.co_filename == "<frozen importlib._bootstrap>" and frame.f_code.co_name == {function!r}
    return press if inside and not heard else None

heard = []
try:
    with stopping.asked(heard):
        sys.settrace(at)
        import html.entities
        time.sleep(5)
        print("never")
except stopping.Stopped:
    sys.settrace(None)
    other = threading.Thread(target=lambda: [__import__(name) for name in ("html.entities", "wave")], daemon=True)
    other.start()
    other.join(5)
    print(heard[0], "hangs" if other.is_alive() else "goes on")
"""


@pytest.mark.parametrize("function", ["_get_module_lock", "cb"])
def test_ctrl_c_within_python_s_own_import_is_heeded_and_leaves_nothing_locked(function):
    code = AMID_IMPORTS.format(function=function)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2 goes on\n", "")


def test_ctrl_c_within_a_destructor_is_not_lost():
    class Late:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)

    with pytest.raises(stopping.Stopped), stopping.asked([]):
        Late()
        time.sleep(5)
        pytest.fail("went on")


def test_ctrl_c_that_c_code_clears_comes_again(capsys):
    """As NumPy clears what is raised in a function that it calls while it is imported."""

    class Late:
        def __getattr__(self, name):
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)

    has, heard = ctypes.pythonapi.PyObject_HasAttrString, []
    has.argtypes = [ctypes.py_object, ctypes.c_char_p]
    with pytest.raises(stopping.Stopped), stopping.asked(heard):
        has(Late(), b"anything")
        sys.excepthook(stopping.Stopped, stopping.Stopped(2), None)  # C code prints it so, as NumPy's does
        assert heard
        time.sleep(5)
        pytest.fail("went on")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert capsys.readouterr().err == ""


def test_cleaning_up_is_neither_disturbed_nor_warned_of(recwarn):
    done = []
    with pytest.raises(stopping.Stopped), stopping.asked([]):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            time.sleep(0.3)  # longer than it takes to raise it again
            warnings.warn("Cython module failed to patch module with custom type", RuntimeWarning, stacklevel=1)
            done.append("cleaned")
    assert done == ["cleaned"]
    assert not recwarn


EVERYWHERE = """
import os, signal, sys
from medsegdiff.base import first_moments

first_moments.end_at_once()
from medsegdiff.app.cli import main

seen, wrong, parent = set(), [], os.getpid()

def press(frame, event, _):
    code = frame.f_code
    place = os.path.relpath(code.co_filename, {package!r}), frame.f_lineno
    if not place[0].startswith(("app/cli", "base/")):
        return None
    if event in ("line", "return") and place not in seen:
        seen.add(place)
        handler, (out, into) = signal.getsignal(signal.SIGINT), os.pipe()
        child = os.fork()
        if not child:
            sys.settrace(None)
            os.dup2(into, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.close(into)
            handler(signal.SIGINT, frame)
            return None
        os.close(into)
        with os.fdopen(out) as stream:
            said = stream.read()
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if (ended, said) != (130, "stopped\\n"):
            wrong.append((*place, event, ended, said))
    return press

sys.settrace(press)
code, child = main(["--version"]), os.getpid() != parent
sys.settrace(None)
if child:
    sys.exit(code)
print(len(seen) > 60, wrong)
"""


def test_ctrl_c_anywhere_between_start_and_end_is_one_line(tmp_path):
    code = EVERYWHERE.format(package=str(Path(stopping.__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "True []", done.stderr


def test_ctrl_c_after_the_end_changes_nothing():
    """Python gives signals back to the system before it takes itself apart."""
    code = "import os, sys; sys.argv = ['medsegdiff', '--version']; from medsegdiff.__main__ import main; "
    code += "sys.last = type('', (), dict(__del__=lambda _, end=os.kill, me=os.getpid(): end(me, 2)))(); main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_that_python_s_start_lost_comes_at_our_first_moment():
    code = "import _imp, sys; sys.argv = ['medsegdiff', '--version']; from medsegdiff.__main__ import main; "
    code += "_imp.acquire_lock(); main()"  # as a callback of its imports leaves it
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_held_back_signals_come_when_the_block_is_done():
    done, heard = [], []
    with stopping.asked(heard), pytest.raises(KeyboardInterrupt):
        with stopping.held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            child = subprocess.run(["sh", "-c", "kill -INT $$; echo alive"], capture_output=True, check=False)
            done.append(child.stdout)
        signal.sigpending()
    assert done == [b"alive\n"]
    assert heard == [signal.SIGTERM]


@pytest.fixture(params=["alone", "beside a thread"])
def beside(request):
    """Another thread, whose mask is its own, may take a signal before the main one unblocks it."""
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(request.param != "alone")]
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_come_in_a_part_that_heeds_them(number):
    end = time.monotonic() + 3  # a signal that the other thread takes does not cut a sleep of this one short
    for _ in range(200):  # where the other thread is in time differs
        if time.monotonic() > end:
            break
        done, heard = [], []
        # Outermost: on a slow machine it is raised once more, behind the part that heeds it.
        with pytest.raises(KeyboardInterrupt), stopping.asked(heard), stopping.held_back():
            signal.signal(number, signal.SIG_IGN)  # as a library may do
            if number == signal.SIGTERM:
                signal.signal(number, signal.getsignal(signal.SIGINT))
                os.kill(os.getpid(), number)
            with stopping.heeded():
                if number == signal.SIGINT:
                    os.kill(os.getpid(), number)
                time.sleep(1)
                done.append("never")
        assert (set(heard), done) == ({number}, [])


@pytest.mark.parametrize(("handler", "closed"), [("default_int_handler", ""), ("SIG_IGN", ""), ("SIG_DFL", "2>&-")])
def test_ctrl_c_is_heeded_from_the_first_moment(handler, closed):
    """Also where a shell ignores it, as of what a script runs in the background, and where nobody reads."""
    code = f"import os, signal; signal.signal(signal.SIGINT, signal.{handler}); "
    code += "from medsegdiff.base.first_moments import end_at_once as go; go(); os.kill(os.getpid(), signal.SIGINT)"
    command = ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "" if closed else "stopped\n")


def test_ctrl_c_that_was_held_back_from_python_s_start_comes_at_our_first_moment():
    code = "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); "
    code += "os.kill(os.getpid(), signal.SIGINT); os.execvp(sys.executable, [sys.executable, '-m', 'medsegdiff'])"
    done = subprocess.run([sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")
