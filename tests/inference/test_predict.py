import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.inference.predict import Extras, predict
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.ensembles import read_ensembles
from medsegdiff.io.masks import read_mask
from medsegdiff.io.predictions import read_probability
from medsegdiff.masks.regions import one_region_each
from medsegdiff.nn.network import MedSegDiff

SAMPLING = SamplingConfig(steps=3, members=3)
UNTIL = 0.895  # some of these images settle with four members, some with five
SIZES = {"a.1": (40, 50), "b": (64, 33), "c": (32, 32), "d": (70, 70)}


@pytest.fixture(scope="module")
def network():
    from medsegdiff.config.network import NetworkConfig

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


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"sampler": "dpm++"},
        {"sampler": "sde-dpm++"},
        {"sampler": "ddim", "eta": 0.5},
        {"fusion": "staple"},
        {"members": "2..6", "until": UNTIL},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "defaults",
)
def test_the_files_are_the_same_bytes_for_any_batch_size_and_order(write, sampling):
    extras = Extras(members=True)
    folder = write("whole", extras=extras, batch_size=16, **sampling)
    whole, counts = contents(folder), {id: ensemble.members for id, ensemble in read_ensembles(folder).items()}
    assert list(counts) == list(SIZES)
    assert set(counts.values()) == {3} if "members" not in sampling else len(set(counts.values())) > 1
    assert len(whole) == sum(4 + 1 + count for count in counts.values())  # mask, prob, std, entropy; cal; members
    for name, options in {
        "alone": {"batch_size": 1},
        "three": {"batch_size": 3},
        "shuffled": {"batch_size": 16, "order": [2, 0, 3, 1]},
        "part": {"batch_size": 4, "order": [3]},
    }.items():
        other = contents(write(name, extras=extras, **sampling, **options))
        assert other == {file: whole[file] for file in other}
        assert len(other) == (len(whole) if name != "part" else 5 + counts["d"])


def test_the_run_says_what_was_done(write):
    for options, steps in (({}, 3), ({"timestep_respacing": "2,5"}, 7), ({"steps": 0}, 30)):
        run = json.loads((write("run", **options) / "run.json").read_text())
        assert run["sampling"]["steps"] == run["network_evaluations_per_mask"] == steps
        assert run["sampling"]["timestep_respacing"] == options.get("timestep_respacing", "")


def test_what_is_known_of_each_image_is_listed(write):
    folder = write("listed", members="2..4", until=1e-9)
    ensembles = read_ensembles(folder)
    assert list(ensembles) == list(SIZES)
    assert {ensemble.members for ensemble in ensembles.values()} == {4}
    assert all(0 <= ensemble.agreement <= 1 for ensemble in ensembles.values())
    run = json.loads((folder / "run.json").read_text())
    assert run["sampling"]["until"] == 1e-9
    assert run["network_evaluations_per_mask"] == 3
    assert {ensemble.agreement for ensemble in read_ensembles(write("single", members=1)).values()} == {None}


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


def test_the_mask_is_cleaned_up_on_demand_and_the_rest_stays(write):
    extras = Extras(overlays=True)
    plain, cleaned = write("plain", extras=extras), write("cleaned", extras=extras, postprocess=True)
    changed = []
    for name in SIZES:
        before, after = (read_mask(folder / f"{name}.png") > 0.5 for folder in (plain, cleaned))
        np.testing.assert_array_equal(after, one_region_each(before.astype(np.uint8)) > 0)
        if (before != after).any():
            changed.append(f"{name}_overlay.png")
        for companion in ("prob", "std", "entropy"):
            file = f"{name}_{companion}.png"
            assert (plain / file).read_bytes() == (cleaned / file).read_bytes()
    assert changed
    assert any((plain / file).read_bytes() != (cleaned / file).read_bytes() for file in changed)
    assert (plain / "images.csv").read_bytes() == (cleaned / "images.csv").read_bytes()
    assert json.loads((cleaned / "run.json").read_text())["sampling"]["postprocess"] is True


def test_the_files_of_flipped_images_are_the_same_bytes_for_any_batch_size(write):
    whole = write("whole", extras=Extras(members=True), tta=True, members=4)
    assert json.loads((whole / "run.json").read_text())["sampling"]["tta"] is True
    assert contents(write("alone", extras=Extras(members=True), tta=True, members=4, batch_size=1)) == contents(whole)
