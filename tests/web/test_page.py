"""The page as browsers and programs use it, with a network of plain NumPy."""

import base64
import concurrent.futures
import os
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from medsegdiff.api import Segmenter
from medsegdiff.web.worker import Worker
from tests.fake_denoiser import Bright
from tests.web.test_worker import CONFIG

gradio = pytest.importorskip("gradio", reason="gradio is not installed")
client = pytest.importorskip("gradio_client")


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


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, worker) of a page that takes 1 MB and a million pixels."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    from starlette.middleware import Middleware

    from medsegdiff.web.guard import Guard
    from medsegdiff.web.page import Bounds, build, look

    worker = Worker(Segmenter(Held(), CONFIG))
    thread = threading.Thread(target=worker.run)
    thread.start()
    page = build(worker, Bounds(1, 1, 4))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    middleware = {"middleware": [Middleware(Guard, megabytes=2)]}
    page.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, ssr_mode=False,
        show_error=True, max_file_size="1mb", app_kwargs=middleware, **look(),
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}", worker
    page.close(verbose=False)
    worker.close()
    thread.join(5)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 60, (40, 56, 3), np.uint8)
    pixels[10:25, 12:30] += 180
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def ask(url, content, **options):
    encoded = base64.b64encode(content).decode()
    return client.Client(url, verbose=False).predict(encoded, api_name="/segment", **options)


def test_a_program_gets_the_files_that_python_writes(served, photo, tmp_path):
    url, worker = served
    found = ask(url, photo.read_bytes(), name="photo", members=3, seed=5)
    worker.segmenter.segment(photo, members=3, seed=5).save(tmp_path, maps=True)
    for what, end in (("mask", ""), ("probability", "_prob"), ("uncertainty", "_std"), ("overlay", "_overlay")):
        assert base64.b64decode(found[what]) == (tmp_path / f"photo{end}.png").read_bytes()
    assert 0 < found["agreement"] <= 1 and "not that it is right" in found["sentence"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"just text", {}, "image: not an image of a known format"),
        (b"", {}, "image: the file is empty"),
        (None, {"members": 1000}, "members 1000: must be"),
        (None, {"name": "a/b"}, "cannot name a prediction file"),
    ],
)
def test_what_is_refused_is_one_line_without_folders(served, photo, content, options, message):
    with pytest.raises(Exception, match=message) as refused:
        ask(served[0], photo.read_bytes() if content is None else content, **options)
    assert "/tmp" not in str(refused.value) and "\n" not in str(refused.value)
    assert ask(served[0], photo.read_bytes())["mask"]  # the server lives


def test_too_many_pixels_are_refused_before_they_are_decoded(served, tmp_path):
    Image.fromarray(np.zeros((1500, 1000), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(Exception, match="1000 x 1500, more than the 1 million pixels"):
        ask(served[0], (tmp_path / "large.png").read_bytes())


def test_too_many_bytes_are_refused_before_they_have_come(served):
    request = urllib.request.Request(f"{served[0]}/gradio_api/upload", data=b"x", method="POST")
    request.add_header("Content-Length", str(500_000_000))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 413 and "larger than 2 MB" in refused.value.read().decode()


def test_several_at_once_get_their_own(served, photo):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda seed: ask(served[0], photo.read_bytes(), name="x", seed=seed), (1, 2, 1)))
    assert found[0] == found[2] and found[0]["uncertainty"] != found[1]["uncertainty"]


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    for word in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", f"user-data-dir={tmp_path}"):
        options.add_argument(f"--{word}")
    options.binary_location = binary
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


def until(condition, seconds=40):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # the page is still being built
            last = error
        time.sleep(0.1)
    raise AssertionError(f"nothing came ({locals().get('last')})")


def select(browser, selector):
    return browser.find_element("css selector", selector)


def shown(browser):
    return select(browser, "#result").get_attribute("innerHTML")


def upload(browser, url, photo):
    browser.get(url)
    until(lambda: select(browser, "#image input[type=file]")).send_keys(str(photo))
    until(lambda: photo.stem in select(browser, "#image").get_attribute("innerHTML"))


@pytest.fixture
def network(served):
    network = served[1].segmenter._denoiser
    network.held = True
    yield network
    network.held = False
    network.turns.release(100)  # whoever waits goes on
    network.turns = threading.Semaphore(0)


def test_the_mask_is_seen_forming_and_downloaded(served, photo, network, browser, tmp_path):
    upload(browser, served[0], photo)
    select(browser, "#run").click()
    pictures = []
    for step in range(1, 4):
        network.turns.release()
        until(
            lambda step=step: f'data-step="{step}"' in shown(browser) or (step == 3 and "data-done" in shown(browser))
        )
        pictures.append(shown(browser))
    assert len(set(pictures)) == 3
    until(lambda: "data-done" in shown(browser))
    link = re.search(r'download="photo.png" href="data:image/png;base64,([^"]+)"', shown(browser))
    network.held = False
    mask = served[1].segmenter.segment(photo).save(tmp_path / "out")
    assert base64.b64decode(link[1]) == mask.read_bytes()
    requests = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert requests and all(name.startswith((served[0], "data:", "blob:")) for name in requests)


def test_cancel_stops_in_the_middle_and_the_next_run_works(served, photo, network, browser):
    upload(browser, served[0], photo)
    select(browser, "#run").click()
    network.turns.release()
    until(lambda: 'data-step="1"' in shown(browser))
    select(browser, "#stop").click()
    until(lambda: "Cancelled" in select(browser, "#status textarea").get_attribute("value"))
    before, network.held = network.calls, False
    network.turns.release()
    select(browser, "#run").click()
    until(lambda: "data-done" in shown(browser))
    assert network.calls == before + 3  # the cancelled one took no further step


def test_a_text_named_as_an_image_is_refused_on_the_page(served, browser, tmp_path):
    (tmp_path / "notes.png").write_text("just text")
    upload(browser, served[0], tmp_path / "notes.png")
    select(browser, "#run").click()
    until(lambda: "notes.png: not an image of a known format" in browser.page_source)
