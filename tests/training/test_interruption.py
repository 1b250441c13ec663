import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

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


@pytest.mark.parametrize("asked", [True, False])
def test_a_compiler_that_ctrl_c_ends_is_no_failure_of_its_own(asked, tmp_path, monkeypatch):
    """A terminal sends it to the whole group, and shells let signals through again that their parents hold back."""
    monkeypatch.setitem(sys.modules, "jittor_utils", SimpleNamespace(cache_path=str(tmp_path)))
    command = ["/bin/sh", "-c", "sleep 20; exit $?"]
    with pytest.raises(Interrupted if asked else RuntimeError) as ended, stop_requests(), undisturbed():
        compiler = subprocess.Popen(command, start_new_session=True)
        time.sleep(0.3)
        os.killpg(compiler.pid, signal.SIGINT)
        if asked:
            os.kill(os.getpid(), signal.SIGINT)
        if compiler.wait(10):
            raise RuntimeError("[f ...] Run cmd failed: g++ ...")  # in Jittor's words
    assert not asked or ended.value.exit_code == 130


def test_in_another_thread_signals_stay_as_they_are():
    def collected():
        with stop_requests() as requests, undisturbed():
            return requests, signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(collected).result() == ([], before)


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
