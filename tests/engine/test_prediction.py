import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.engine.config import SamplingConfig
from medsegdiff.engine.prediction import Extras, predict
from medsegdiff.engine.segmentation import Segmenter
from medsegdiff.masks.files import read_probability
from medsegdiff.nn.network import MedSegDiff
from medsegdiff.runtime.errors import InputError

SAMPLING = SamplingConfig(steps=3, members=3)
SIZES = {"a.1": (40, 50), "b": (64, 33), "c": (32, 32), "d": (70, 70)}


@pytest.fixture(scope="module")
def network():
    from medsegdiff.nn.config import NetworkConfig

    config = NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1)
    network = MedSegDiff(config).initialise(1)
    network.out[2].weight.assign(network.out[2].weight + 0.05)  # it starts at zero: all masks would be alike
    return network


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
    return [Case(name, folder / f"{name}.png") for name in SIZES]


@pytest.fixture
def write(network, cases, config, tmp_path):
    def write(name, order=None, extras=None, **options):
        chosen = [cases[index] for index in order or range(len(cases))]
        dataset = prepare(chosen, 32, tmp_path / "cache", progress=False)
        segmenter = Segmenter(network, config.diffusion, dataclasses.replace(SAMPLING, **options))
        predict(segmenter, chosen, dataset, tmp_path / name, "weights", extras)
        return tmp_path / name

    return write


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_the_files_are_the_same_bytes_for_any_batch_size_and_order(write, sampler):
    extras = Extras(members=True)
    whole = contents(write("whole", extras=extras, batch_size=16, sampler=sampler))
    assert len(whole) == len(SIZES) * (4 + 1 + 3)  # mask, prob, std, entropy; cal; members
    for name, options in {
        "alone": {"batch_size": 1},
        "three": {"batch_size": 3},
        "shuffled": {"batch_size": 16, "order": [2, 0, 3, 1]},
        "part": {"batch_size": 4, "order": [3]},
    }.items():
        other = contents(write(name, extras=extras, sampler=sampler, **options))
        assert other == {file: whole[file] for file in other}
        assert len(other) == (len(whole) if name != "part" else 8)


def test_what_is_known_of_each_image_is_listed(write):
    folder = write("listed", members="2..4", until=1e-9)
    with (folder / "images.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(SIZES)
    assert {row["members"] for row in rows.values()} == {"4"}
    assert all(0 <= float(row["agreement"]) <= 1 for row in rows.values())
    run = json.loads((folder / "run.json").read_text())
    assert run["sampling"]["until"] == 1e-9
    assert run["network_evaluations_per_mask"] == 3
    with (write("single", members=1) / "images.csv").open() as file:
        assert {row["agreement"] for row in csv.DictReader(file)} == {""}


def test_extras_are_written_where_they_are_asked_for(write):
    folder = write("extras", extras=Extras(overlays=True, traces=["b"]))
    assert {path.name for path in folder.glob("b_*")} == {
        f"b_{name}" for name in ("prob.png", "std.png", "entropy.png", "overlay.png", "trace.png", "trace.gif")
    }
    assert not (folder / "c_trace.gif").exists()
    with Image.open(folder / "b_trace.gif") as gif:
        assert gif.n_frames == 3
    assert read_probability(folder / "b_prob.png").shape == SIZES["b"]


def test_an_image_to_trace_that_is_not_there_is_named(write):
    with pytest.raises(InputError, match=r"--trace nothing: no such image; the first is a\.1"):
        write("none", extras=Extras(traces=["nothing"]))
