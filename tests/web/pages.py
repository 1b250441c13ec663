"""A page whose network is plain NumPy, and waits where a test wants it to."""

import os
import socket
import threading

import pytest

from medsegdiff.api import Segmenter
from medsegdiff.web.worker import Worker
from tests.fake_denoiser import Bright


class Held(Bright):
    """While it is `held` it takes a step for each `release` of its turns."""

    held, calls = False, 0

    def __init__(self):
        super().__init__()
        self.turns = threading.Semaphore(0)

    def denoise(self, mask_t, t, condition):
        self.calls += 1
        if self.held:
            assert self.turns.acquire(timeout=60)
        return super().denoise(mask_t, t, condition)


class Server:
    """A page that takes 1 MB and a million pixels."""

    def __init__(self, home, config):
        from medsegdiff.web.incoming import Bounds
        from medsegdiff.web.page import build, launching

        self.network, bounds, self.home = Held(), Bounds(1, 1, 4), home
        self.worker = Worker(Segmenter(self.network, config))
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()
        self.page = build(self.worker, bounds, home)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.page.launch(server_name="127.0.0.1", server_port=self.port, **launching(bounds))
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.page.close(verbose=False)
        self.worker.close()
        self.thread.join(5)


def serving(config):
    """A fixture: a page of this configuration."""

    @pytest.fixture(scope="module")
    def served(tmp_path_factory):
        home = tmp_path_factory.mktemp("home")
        os.environ["GRADIO_TEMP_DIR"] = str(home)
        server = Server(home, config)
        yield server
        server.stop()

    return served
