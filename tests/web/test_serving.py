"""`medsegdiff serve` as it is started, with the network of the package; beside `medsegdiff sample`."""

import concurrent.futures
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from medsegdiff.base.randomness import generator
from medsegdiff.data.drawing import draw
from tests.web.browsing import ask, says, select, shown, until, upload

pytestmark = pytest.mark.extended

pytest.importorskip("gradio", reason="gradio is not installed")

PHOTOS = Path(__file__).parents[3] / "shared/data/isic2016/Test/ISBI2016_ISIC_Part1_Test_Data"
WAITING = 2


class Server:
    """The command in a process of its own."""

    def __init__(self, *words, port=0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "medsegdiff", "serve", "--port", str(self.port), *words]
        proxied = {**os.environ, "http_proxy": "http://127.0.0.1:9"}  # where nothing answers
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=proxied)
        assert "until Ctrl-C" in self.process.stdout.readline()
        self.url = f"http://127.0.0.1:{self.port}"

    def megabytes(self):
        """The memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 130


@pytest.fixture(scope="module")
def server():
    server = Server("--max-waiting", str(WAITING))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A dermoscopic one, where there are some, else one that is drawn."""
    for real in PHOTOS.glob("*.jpg"):
        return real
    path = tmp_path_factory.mktemp("photos") / "drawn.jpg"
    Image.fromarray(draw(generator("photo"), 512)[0]).save(path)
    return path


def test_a_real_photo_s_mask_is_seen_forming_and_what_is_downloaded_is_what_sample_writes(
    server, photo, browser, downloads, tmp_path
):
    upload(browser, server, photo)
    box = select(browser, "#steps input[type=number]")
    browser.execute_script("arguments[0].value = 12; arguments[0].dispatchEvent(new Event('input'))", box)
    browser.execute_script(
        "window.seen = [];"
        "setInterval(() => { const path = document.querySelector('#result [data-step] path');"
        "if (path) seen.push(path.getAttribute('d')); }, 20);"
    )
    select(browser, "#run").click()
    until(lambda: "data-done" in shown(browser), 120)
    assert len(set(browser.execute_script("return seen"))) >= 4
    links = browser.find_elements("css selector", "#result a[download]")
    names = {link.get_attribute("download") for link in links}
    assert names == {f"{photo.stem}{kind}.png" for kind in ("", "_prob", "_std", "_overlay")}
    for link in links:
        link.click()
    until(lambda: {path.name for path in downloads.iterdir()} == names)
    words = ["sample", "--images", str(photo), "--out-dir", str(tmp_path), "--steps", "12", "--maps"]
    subprocess.run([sys.executable, "-m", "medsegdiff", *words], check=True, capture_output=True)
    for name in names:
        assert (downloads / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_500_megabytes_that_are_sent_all_the_same_are_neither_taken_nor_kept(server, photo):
    before = server.megabytes()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    refused = None
    try:
        connection.request("POST", "/gradio_api/queue/join", (bytes(10**6) for _ in range(500)), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    except (BrokenPipeError, ConnectionResetError) as error:
        refused = error
    assert refused or connection.getresponse().status == 413
    assert server.megabytes() < before + 100
    assert ask(server, photo, members=1)["files"]  # the server lives


def test_four_clients_for_a_minute_hear_of_the_queue_alone_and_memory_stays_flat(server, photo):
    def client(end):
        """How many requests were answered, and what the others heard."""
        done, heard = 0, set()
        while time.monotonic() < end:
            try:
                done += bool(ask(server, photo, members=2)["files"])
            except Exception as error:
                heard.add(str(error))
        return done, heard

    def clients(seconds):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(client, [time.monotonic() + seconds] * 4))
        return sum(done for done, _ in found), set().union(*(heard for _, heard in found))

    clients(30)  # until what libraries keep is there
    before = server.megabytes()
    done, heard = clients(60)
    print(f"{done} requests, {before:.0f} MiB before and {server.megabytes():.0f} after, {heard}")
    assert done > 10 and all("Queue is full" in words for words in heard)
    assert server.megabytes() < before + 16


def test_a_server_that_is_killed_and_started_again_is_said_and_works(photo, browser):
    server = Server()
    upload(browser, server, photo)
    select(browser, "#run").click()
    server.process.kill()
    server.process.wait()
    until(lambda: "The server does not answer" in select(browser, "#connection").text)
    again = Server(port=server.port)
    try:
        until(lambda: not select(browser, "#image input[type=file]").get_attribute("value"))  # the page begins anew
        upload(browser, again, photo)
        select(browser, "#run").click()
        until(lambda: "data-done" in shown(browser), 120)
        says(browser, "Done.")
    finally:
        again.stop()


def test_an_idle_page_goes_on_with_its_image_when_the_server_is_there_again(photo, browser):
    server = Server()
    upload(browser, server, photo)
    server.process.kill()
    server.process.wait()
    until(lambda: "The server does not answer" in select(browser, "#connection").text)
    again = Server(port=server.port)
    try:
        until(lambda: "The server answers again" in select(browser, "#connection").text)
        select(browser, "#run").click()
        until(lambda: "data-done" in shown(browser), 120)
    finally:
        again.stop()


def test_who_may_come_in_is_asked(photo):
    server = Server("--auth", "me:secret")
    try:
        with pytest.raises(Exception, match="Please login"):
            ask(server, photo)
        with pytest.raises(Exception, match=r"[Ll]ogin|401|[Cc]redentials"):
            ask(server, photo, auth=("me", "wrong"))
        assert ask(server, photo, auth=("me", "secret"), members=1)["files"]
    finally:
        server.stop()
