"""The report and the page on a phone and on a large screen, in light and dark."""

import pytest
from PIL import Image

from medsegdiff.web.report import write_report
from tests.web.browsing import select, shown, until, upload
from tests.web.conftest import predict, train

TAB = "\ue004"

pytestmark = pytest.mark.extended

pytest.importorskip("gradio", reason="gradio is not installed")
axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")


@pytest.fixture(params=["light", "dark"])
def scheme(request, browser):
    features = [{"name": "prefers-color-scheme", "value": request.param}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    yield request.param
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(params=[390, 1600])
def width(request, browser):
    size = {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield request.param
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def check(browser):
    """Nothing is wider than the window, and nothing hinders who sees little or uses no mouse."""
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    found = [each for each in axe.Axe().run(browser)["violations"] if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], node["html"][:200]) for each in found for node in each["nodes"]]


def test_reports(scheme, width, browser, predictions, tmp_path):
    browser.get(write_report([predictions], tmp_path / "one.html").as_uri())
    check(browser)
    second = train(tmp_path / f"second-training-with-a-{'long' * 40}-name")
    other = predict(tmp_path / "other", second / "step-000030" / "model.safetensors")
    browser.get(write_report([predictions, other], tmp_path / "two.html").as_uri())
    for part in browser.find_elements("css selector", "summary"):
        part.click()
    check(browser)


def test_what_lies_beneath_a_picture_is_seen_by_keyboard(browser, predictions, tmp_path):
    browser.get(write_report([predictions], tmp_path / "page.html").as_uri())

    def look():
        return browser.execute_script(
            "const at = document.activeElement;"
            "return at.matches('.panel') ? getComputedStyle(at.querySelector('.over')).opacity : ''"
        )

    until(lambda: browser.switch_to.active_element.send_keys(TAB) or look())
    until(lambda: look() == "0")


def test_pages(scheme, width, browser, served, tmp_path):
    Image.new("RGB", (56, 40), (200, 120, 90)).save(tmp_path / "photo.png")
    upload(browser, served, tmp_path / "photo.png")
    check(browser)
    select(browser, "#run").click()
    until(lambda: "data-done" in shown(browser))
    check(browser)
