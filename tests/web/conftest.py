import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.evaluation.truth import truth_from_folder
from medsegdiff.io.ensembles import ImageRow, write_ensembles
from medsegdiff.io.predictions import Maps, write_prediction
from tests.web.pages import serving
from tests.web.test_worker import CONFIG, VOLUMES

SHAPE = (40, 60)

served, volumes = serving(CONFIG), serving(VOLUMES)


def train(folder, loss=(2.0, 1.0, 0.5), dice=("", "0.25", "0.75"), images=7):
    """A training's folder, as far as a report reads it."""
    (folder / "best").mkdir(parents=True)
    with (folder / "log.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "loss", "val_dice"])
        table.writerows([10 * (row + 1), *values] for row, values in enumerate(zip(loss, dice)))
    (folder / "config.yaml").write_text(f"image_size: 32\nlr: 0.0003\nout_dir: {folder}\n")
    origin = {
        "versions": {"numpy": "1.26"},
        "machine": {"cpu": "Some Processor", "threads": 2},
        "command": "train <here>",
        "dataset": {"fingerprint": "f1n6er", "images": images, "validation": ["a", "b"], "spec": {"channels": 3}},
    }
    (folder / "run.json").write_text(json.dumps(origin))
    times = ("2026-01-01T00:00:00.000+00:00", "2026-01-01T00:00:40.000+00:00", "2026-01-02T00:00:00.000+00:00")
    events = [("start", 0), ("checkpoint", 20), ("resume", 20)]
    lines = [json.dumps({"time": t, "event": e, "step": s}) for t, (e, s) in zip(times, events)]
    (folder / "events.jsonl").write_text("\n".join(lines) + '\n{"time": "cut sho')
    return folder


def predict(folder, weights, count=8, shift=1, scored=True, images=True):
    """A folder of predictions, each `shift` times its number off the ground truth; scored, if asked."""
    pictures, truths = folder.parent / "pictures", folder.parent / "truths"
    for made in (pictures, truths, folder):
        made.mkdir(parents=True, exist_ok=True)
    names = [f"case<{number}>" for number in range(count)]
    for number, name in enumerate(names):
        mask = np.zeros(SHAPE, bool)
        mask[10:30, 10:30] = True
        Image.fromarray(mask).save(truths / f"{name}.png")
        Image.fromarray(np.full((*SHAPE, 3), 90 + number, np.uint8)).save(pictures / f"{name}.jpg")
        moved = np.roll(mask, shift * number, axis=1)[None] * np.float32(0.9)
        write_prediction(folder, name, Maps(moved, moved / 3))
    write_ensembles(folder, {name: ImageRow(5, 0, 1 - number / 20) for number, name in enumerate(names)})
    run = {
        "weights": str(weights),
        "sampling": {"members": 5, "steps": 3},
        "network_evaluations_per_mask": 3,
        "images": names,
        "image_files": {name: str(pictures / f"{name}.jpg") for name in names} if images else {},
        "images_done_before": 4,
        "seconds": 8.0,
    }
    (folder / "run.json").write_text(json.dumps(run))
    if scored:
        evaluate(folder, truth_from_folder(truths), out=folder, note="not <real>")
    return folder


@pytest.fixture
def training(tmp_path):
    return train(tmp_path / "run")


@pytest.fixture
def predictions(training):
    return predict(training.parent / "predictions", training / "best" / "step-000030" / "model.safetensors")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Where Chromium puts what is downloaded."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory, downloads):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("profile")
    for word in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", f"user-data-dir={profile}"):
        options.add_argument(f"--{word}")
    options.binary_location = binary
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    chromium.get("about:blank")
    return chromium
