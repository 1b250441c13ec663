"""The page as browsers and programs use it, with a network of plain NumPy."""

import base64
import concurrent.futures
import json
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.io.volumes import read_volume
from tests.data.volumes import ball, write
from tests.dicom_series import maker
from tests.web.browsing import ask, downloaded, give, says, select, shown, submit, until, upload

pytestmark = pytest.mark.extended

gradio = pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 60, (40, 56, 3), np.uint8)
    pixels[10:25, 12:30] += 180
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """(image, mask) as NIfTI."""
    image, labels = ball()
    folder = tmp_path_factory.mktemp("volumes")
    return write(folder / "v.nii.gz", image), write(folder / "v-seg.nii.gz", np.uint8(labels > 0))


def test_a_program_gets_the_files_that_python_writes(served, photo, tmp_path):
    found = ask(served, photo, members=3, seed=5)
    served.worker.segmenter.segment(photo, members=3, seed=5).save(tmp_path, maps=True)
    assert set(found["files"]) == {f"photo{end}.png" for end in ("", "_prob", "_std", "_overlay")}
    for name, content in found["files"].items():
        assert content == (tmp_path / name).read_bytes()
    assert 0 < found["agreement"] <= 1 and "not that it is right" in found["sentence"]


def test_a_program_gets_the_bytes_of_a_volume_and_a_segmentation_of_a_series(volumes, volume, tmp_path):
    found = ask(volumes, volume[0], members=2)
    volumes.worker.segmenter.segment_volume(volume[0], members=2, cache_dir=tmp_path / "c").save(tmp_path / "out")
    for name in ("v.nii.gz", "v_prob.nii.gz", "v_overlay.png"):
        assert found["files"][name] == (tmp_path / "out" / name).read_bytes()
    folder, *_ = maker(tmp_path)()
    found = ask(volumes, *folder.iterdir(), members=1, slices=[2, 3])
    (tmp_path / "found.dcm").write_bytes(found["files"]["series.dcm"])
    (tmp_path / "found.nii.gz").write_bytes(found["files"]["series.nii.gz"])
    mask = read_volume(tmp_path / "found.nii.gz").values
    np.testing.assert_array_equal(read_volume(tmp_path / "found.dcm", folder).values, mask)
    assert mask[..., 2:4].any() and not mask[..., 4:].any()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"just text", {}, "photo.png: not an image of a known format"),
        (b"", {}, "photo.png: the file is empty"),
        (None, {"members": 1000}, "members 1000: must be"),
    ],
)
def test_what_is_refused_is_one_line_without_folders(served, photo, tmp_path, content, options, message):
    path = tmp_path / "photo.png"
    path.write_bytes(photo.read_bytes() if content is None else content)
    with pytest.raises(Exception, match=message) as refused:
        ask(served, path, **options)
    assert "/" not in str(refused.value) and "\n" not in str(refused.value)
    assert ask(served, photo)["files"]  # the server lives


def test_too_many_pixels_are_refused_before_they_are_decoded(served, tmp_path):
    Image.fromarray(np.zeros((1500, 1000), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(Exception, match=r"large\.png: 1000 x 1500, more than the 1 million pixels"):
        ask(served, tmp_path / "large.png")


def test_too_many_bytes_are_refused_before_they_have_come(served):
    request = urllib.request.Request(f"{served.url}/gradio_api/queue/join", data=b"x", method="POST")
    request.add_header("Content-Length", str(500_000_000))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 413 and "larger than 2 MB" in refused.value.read().decode()


def test_several_at_once_get_their_own(served, photo):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda seed: ask(served, photo, seed=seed), (1, 2, 1)))
    assert found[0] == found[2] and found[0]["files"]["photo_std.png"] != found[1]["files"]["photo_std.png"]


def test_nothing_that_came_in_is_left(served, photo):
    ask(served, photo)
    assert not [path for path in served.home.rglob("*") if path.is_file()]


def test_nothing_is_left_of_a_cancelled_one_either(served, photo, monkeypatch):
    inside, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def late(found, folder):
        inside.set()
        assert go_on.wait(20)
        try:
            found.save(folder)
            return []
        finally:
            ended.set()

    monkeypatch.setattr("medsegdiff.web.view.downloads", late)
    job = submit(served, photo)
    assert inside.wait(20)
    threading.Timer(1, go_on.set).start()
    job.cancel()
    assert ended.wait(20)
    until(lambda: not [path for path in served.home.rglob("*") if path.is_file()])


@pytest.mark.parametrize("place", ["", "config", "gradio_api/info", "gradio_api/openapi.json"])
def test_the_page_and_its_interface_name_no_folder_of_the_machine(served, place):
    with urllib.request.urlopen(f"{served.url}/{place}", timeout=20) as reply:
        said = reply.read().decode()
    for folder in (served.home, f"{tempfile.gettempdir()}/", f"{Path.home()}/", Path.cwd(), "site-packages"):
        assert str(folder) not in said, folder


@pytest.fixture
def network(served):
    network = served.network
    network.held = True
    yield network
    network.held = False
    network.turns.release(100)  # whoever waits goes on
    network.turns = threading.Semaphore(0)


@pytest.mark.parametrize("place", ["/gradio_api/queue/data?session_hash=s", "/gradio_api/call/segment/{event_id}"])
def test_a_program_that_ends_stops_its_job(served, photo, network, place):
    config = json.load(urllib.request.urlopen(f"{served.url}/config"))
    number = next(each["id"] for each in config["dependencies"] if each["api_name"] == "segment")
    files = {"photo.png": base64.b64encode(photo.read_bytes()).decode()}
    asked = {"data": [files, 20, 8, "ddpm", 0, None], "fn_index": number, "session_hash": "s"}
    post = "/gradio_api/queue/join" if "queue" in place else "/gradio_api/call/segment"
    headers, before = {"Content-Type": "application/json"}, network.calls
    request = urllib.request.Request(served.url + post, json.dumps(asked).encode(), headers)
    heard = urllib.request.urlopen(served.url + place.format(**json.load(urllib.request.urlopen(request))))
    network.turns.release(9)  # all steps of the first 15 masks, and one of the others
    until(lambda: network.calls == before + 10)
    heard.close()
    for _ in range(3):
        time.sleep(1)
        network.turns.release()
    assert network.calls <= before + 12


def test_the_mask_is_seen_forming_and_downloaded(served, photo, network, browser, tmp_path):
    upload(browser, served, photo)
    select(browser, "#run").click()
    pictures = []
    for step in range(1, 4):
        network.turns.release()
        until(
            lambda step=step: f'data-step="{step}"' in shown(browser) or (step == 3 and "data-done" in shown(browser))
        )
        pictures.append(shown(browser))
        if step == 1:
            says(browser, "Sampling: step 1 of 3")
    assert len(set(pictures)) == 3
    until(lambda: "data-done" in shown(browser))
    network.held = False
    mask = served.worker.segmenter.segment(photo).save(tmp_path / "out")
    assert downloaded(browser)["photo.png"] == mask.read_bytes()
    requests = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert requests and all(name.startswith((served.url, "data:", "blob:")) for name in requests)
    assert str(served.home) not in browser.page_source


def test_an_image_may_be_dropped_anywhere_on_its_area(served, photo, browser):
    browser.get(served.url)
    area = until(lambda: select(browser, "#image .msd-drop"))
    drop = (
        "const data = new DataTransfer(), bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0));"
        "data.items.add(new File([bytes], 'dropped.png'));"
        "const event = {dataTransfer: data, bubbles: true, cancelable: true};"
        "return arguments[0].dispatchEvent(new DragEvent('drop', event));"
    )
    opened = browser.execute_script(drop, area, base64.b64encode(photo.read_bytes()).decode())
    assert not opened  # the browser does not leave the page for the picture
    says(browser, "dropped: 56 x 40 pixels. Press Segment.")


def test_what_is_given_last_is_the_image(served, photo, browser):
    upload(browser, served, photo)
    chosen = select(browser, "input[aria-label='or an example']")
    chosen.click()
    until(lambda: select(browser, "[role=option][aria-label='generated 1']")).click()
    says(browser, "generated-1: 256 x 256 pixels")
    file = select(browser, "#image input[type=file]")
    assert file.get_attribute("value") == ""
    file.send_keys(str(photo))
    says(browser, "photo: ")
    until(lambda: chosen.get_attribute("value") == "")


def test_a_volume_is_looked_through_and_segmented_as_python_does(volumes, volume, browser, tmp_path):
    upload(browser, volumes, volume[0])
    select(browser, "#truth input[type=file]").send_keys(str(volume[1]))
    seen = "return [...document.querySelectorAll('[data-slice]')].filter(e => !e.hidden).map(e => e.dataset.slice)"
    assert browser.execute_script(seen) == ["5"]
    box = select(browser, "#slice input[type=number]")
    browser.execute_script("arguments[0].value = 3; arguments[0].dispatchEvent(new Event('input'))", box)
    until(lambda: browser.execute_script(seen) == ["3"])
    select(browser, "#run").click()
    until(lambda: "data-done" in shown(browser))
    assert browser.execute_script(seen) == ["3"]
    assert "dice 0." in shown(browser) or "dice 1." in shown(browser)
    found = downloaded(browser)
    volumes.worker.segmenter.segment_volume(volume[0], cache_dir=tmp_path / "c").save(tmp_path / "out", maps=True)
    for name in ("v.nii.gz", "v_prob.nii.gz", "v_std.nii.gz"):
        assert found[name] == (tmp_path / "out" / name).read_bytes()
    select(browser, "#part label:nth-of-type(2) input").click()
    select(browser, "#run").click()
    until(lambda: "of the slices that were segmented" in shown(browser))


def test_cancel_stops_in_the_middle_and_the_next_run_works(served, photo, network, browser):
    upload(browser, served, photo)
    select(browser, "#run").click()
    network.turns.release()
    until(lambda: 'data-step="1"' in shown(browser))
    select(browser, "#stop").click()
    says(browser, "Cancelled")
    before, network.held = network.calls, False
    network.turns.release()
    select(browser, "#run").click()
    until(lambda: "data-done" in shown(browser))
    assert network.calls == before + 3  # the cancelled one took no further step


def test_a_text_named_as_an_image_is_refused_on_the_page(served, browser, tmp_path):
    (tmp_path / "notes.png").write_text("just text")
    give(browser, served, tmp_path / "notes.png")
    until(lambda: "notes.png: not an image of a known format" in browser.page_source)


def test_500_megabytes_are_refused_on_the_page(served, photo, browser, tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(500_000_000)
    give(browser, served, tmp_path / "huge.png")
    until(lambda: "huge.png: more than the 1 MB that are accepted here" in browser.page_source)
    upload(browser, served, photo)  # the server lives


def test_two_users_wait_for_each_other(served, photo, network, browser):
    upload(browser, served, photo)
    select(browser, "#run").click()
    browser.switch_to.new_window("tab")
    first, _ = browser.window_handles
    upload(browser, served, photo)
    select(browser, "#run").click()
    network.turns.release(6)
    until(lambda: "data-done" in shown(browser))
    mine = downloaded(browser)
    browser.close()
    browser.switch_to.window(first)
    until(lambda: "data-done" in shown(browser))
    assert downloaded(browser) == mine and mine
