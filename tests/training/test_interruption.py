import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medsegdiff.runtime import compilation
from medsegdiff.training.interruption import Interrupted, held_back, stop_requests, undisturbed


def test_stop_requests_are_collected_and_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_request_is_known_within_an_undisturbed_block_and_delivered_after_it():
    with stop_requests() as requests:
        with undisturbed():
            assert not held_back(requests)
            os.kill(os.getpid(), signal.SIGINT)
            assert held_back(requests)
        # Another thread, of OpenMP say, may have been given it, and be about to tell this one.
        deadline = time.monotonic() + 5
        while not requests and time.monotonic() < deadline:
            time.sleep(0.01)
        assert requests == [signal.SIGINT]


def test_a_request_is_held_back_from_this_thread():
    with stop_requests() as requests:
        with undisturbed():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            assert requests == []
            assert held_back(requests)
        assert requests == [signal.SIGTERM]


def test_a_compiler_that_a_step_starts_survives_ctrl_c():
    """Which a terminal sends to the whole group. Debian's shell lets signals through again that wait."""
    launcher = Path(compilation.__file__).with_name("compile_kernel.sh")
    compiler = f"{sys.executable} -c 'import os; os.kill(os.getpid(), 2); print(1)'"
    command = ["/bin/sh", "-c", f'/bin/sh "{launcher}" --python=/bin/sh -c "{compiler}; true" 2>&1; true']
    with stop_requests(), undisturbed():
        assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "1\n"
    assert "KeyboardInterrupt" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_exit_codes_are_those_of_the_shell():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    assert [Interrupted(number).exit_code for number in numbers] == [130, 143, 138, 129]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_each_signal_is_a_request_unless_it_is_ignored(number):
    before = signal.getsignal(number)
    try:
        for handler, heard in ((signal.SIG_IGN, []), (signal.SIG_DFL, [number])):
            signal.signal(number, handler)
            with stop_requests() as requests:
                os.kill(os.getpid(), number)
                assert requests == heard
            assert signal.getsignal(number) == handler
    finally:
        signal.signal(number, before)
