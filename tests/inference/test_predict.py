import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import MANIFEST
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.inference.files import Extras
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.inference.predict import predict
from medsegdiff.inference.segmenter import BatchSegmenter, ImageResult
from medsegdiff.io.ensembles import read_ensembles
from medsegdiff.io.masks import read_mask
from medsegdiff.io.predictions import read_probability
from medsegdiff.masks.regions import one_region_each
from medsegdiff.nn.versions import build_network

SAMPLING = SamplingConfig(steps=3, members=3)
UNTIL = 0.895  # some of these images settle with four members, some with five
SIZES = {"a.1": (40, 50), "b": (64, 33), "c": (32, 32), "d": (70, 70)}


@pytest.fixture(scope="module")
def network():
    from medsegdiff.config.network import NetworkConfig

    config = NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1)
    network = build_network(config).initialise(1)
    network.out[2].weight.assign(network.out[2].weight + 0.05)  # it starts at zero: all masks would be alike
    return network


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(folder / f"{name}.png")
    return [Case(name, (folder / f"{name}.png",)) for name in SIZES]


@pytest.fixture
def write(network, cases, config, tmp_path):
    def write(name, order=None, extras=None, **options):
        chosen = [cases[index] for index in order or range(len(cases))]
        dataset = prepare(chosen, 32, tmp_path / "cache", progress=False)
        sampling = dataclasses.replace(SAMPLING, **options)
        segmenter = BatchSegmenter(JittorDenoiser(network), config.diffusion, sampling)
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
    extras = Extras(maps=True, members=True)
    folder = write("whole", extras=extras, batch_size=16, **sampling)
    whole, counts = contents(folder), {id: ensemble.members for id, ensemble in read_ensembles(folder).items()}
    assert list(counts) == list(SIZES)
    assert set(counts.values()) == {3} if "members" not in sampling else len(set(counts.values())) > 1
    assert len(whole) == sum(
        5 + 1 + count for count in counts.values()
    )  # mask, prob, overlay, std, entropy; cal; members
    for name, options in {
        "alone": {"batch_size": 1},
        "three": {"batch_size": 3},
        "shuffled": {"batch_size": 16, "order": [2, 0, 3, 1]},
        "part": {"batch_size": 4, "order": [3]},
    }.items():
        other = contents(write(name, extras=extras, **sampling, **options))
        assert other == {file: whole[file] for file in other}
        assert len(other) == (len(whole) if name != "part" else 6 + counts["d"])


def test_the_run_says_what_was_done(write):
    for options, steps in (({}, 3), ({"timestep_respacing": "2,5"}, 7), ({"steps": 0}, 30)):
        run = json.loads((write(f"run-{steps}", **options) / "run.json").read_text())
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
    folder = write("extras", extras=Extras(maps=True, traces=["b"]))
    assert {path.name for path in folder.glob("b_*")} == {
        f"b_{name}" for name in ("prob.png", "std.png", "entropy.png", "overlay.png", "trace.png", "trace.gif")
    }
    assert not (folder / "c_trace.gif").exists()
    with Image.open(folder / "b_trace.gif") as gif:
        assert gif.n_frames == 3
    assert read_probability(folder / "b_prob.png").shape == SIZES["b"]


def test_mask_overlay_and_probability_are_written_where_nothing_else_is_asked_for(run, tmp_path):
    run(Fake())
    written = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert written == {f"{name}{end}.png" for name in SIZES for end in ("", "_overlay", "_prob")}
    run(Fake(), extras=Extras(overlays=False))
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"{name}{end}.png" for name in SIZES for end in ("", "_prob")
    }


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_ground_truth_that_cannot_be_read_is_not_drawn_and_told(run, cases, tmp_path, capsys, content):
    run(Fake())
    overlay = tmp_path / "out" / "b_overlay.png"
    before = overlay.read_bytes()
    mask = tmp_path / "b_Segmentation.png"
    if content is not None:
        mask.write_bytes(content)
    with_mask = [dataclasses.replace(case, mask=mask if case.id == "b" else None) for case in cases]
    run(Fake(seed=1), with_mask, overwrite=True)
    assert "note: the overlay is without ground truth: " in capsys.readouterr().out
    assert overlay.read_bytes() == before
    drawn = np.zeros(SIZES["b"], np.uint8)
    drawn[10:30, 5:20] = 255
    Image.fromarray(drawn).save(mask)
    run(Fake(seed=1), with_mask)
    assert overlay.read_bytes() != before


def test_an_image_to_trace_that_is_not_there_is_named(write):
    with pytest.raises(InputError, match=r"trace nothing: no such image; the first is a\.1"):
        write("none", extras=Extras(traces=["nothing"]))


def test_the_mask_is_cleaned_up_on_demand_and_the_rest_stays(write):
    extras = Extras(maps=True)
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


class Fake:
    """Segments without a network; counts how often."""

    evaluations = 3
    denoiser = SimpleNamespace(backend="none")

    def __init__(self, stop_before=None, **options):
        self.sampling, self.stop_before, self.segmented = SamplingConfig(steps=3, members=1, **options), stop_before, []

    def segment(self, ids, image, keep_members, on_step, chosen):
        for index in chosen:
            if ids[index] == self.stop_before:
                raise KeyboardInterrupt
            on_step([ids[index]], [0], None)
            self.segmented.append(ids[index])
            mask = np.full((1, 32, 32), 0.75, np.float32)
            yield ImageResult(index, ids[index], mask, mask / 8, mask, 1, 0, None, np.empty((0, 1, 32, 32), np.float32))


@pytest.fixture
def run(cases, tmp_path):
    def run(segmenter, chosen=None, extras=None, **options):
        chosen = cases if chosen is None else chosen
        dataset = prepare(chosen, 32, tmp_path / "cache", progress=False)
        predict(segmenter, chosen, dataset, tmp_path / "out", "weights", extras, **options)
        return segmenter.segmented

    return run


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("run.json", MANIFEST)}


def test_a_stopped_sampling_goes_on_where_it_was(run, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(Fake(stop_before="c"))
    assert [path for path in out.iterdir() if path.suffix == ".tmp"] == []
    (out / f".{'0' * 32}.tmp").mkdir()  # as a killed one leaves it
    assert run(Fake()) == ["c", "d"]
    assert "2 of 4 images are done already, with the same weights and options" in capsys.readouterr().out
    resumed = everything(out)
    shutil.rmtree(out)
    assert run(Fake(batch_size=2)) == list(SIZES)
    assert everything(out) == resumed


@pytest.fixture
def two_at_a_time(monkeypatch):
    """Have two threads write, each pair of images at the very same time; gives a set of images that fail then."""
    module = importlib.import_module("medsegdiff.inference.predict")
    write, meeting, failing = module.write_image, threading.Barrier(2), set()

    def together(ledger, result, size, picture, *others):
        def meet(shown):
            meeting.wait(30)
            if result.id in failing:
                raise InputError(f"{result.id}.png: cannot be read")
            return picture(shown)

        return write(ledger, result, size, meet, *others)

    monkeypatch.setattr(module.machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "write_image", together)
    return failing


def test_images_that_are_written_at_the_same_time_are_the_same_bytes_in_the_same_order(run, tmp_path, request):
    out = tmp_path / "out"
    run(Fake())
    alone = everything(out)
    shutil.rmtree(out)
    request.getfixturevalue("two_at_a_time")
    run(Fake())
    assert everything(out) == alone
    assert list(read_ensembles(out)) == list(SIZES)
    assert run(Fake()) == []


def test_an_image_that_fails_is_named_and_the_one_that_is_written_beside_it_stays(
    run, tmp_path, two_at_a_time, monkeypatch
):
    two_at_a_time.add("a.1")
    with pytest.raises(InputError, match=r"a\.1\.png: cannot be read"):
        run(Fake())
    out = tmp_path / "out"
    assert {path.name for path in out.glob("*.png")} == {"b.png", "b_overlay.png", "b_prob.png"}
    assert not [path for path in out.iterdir() if path.suffix in (".tmp", ".lock", ".csv")]
    monkeypatch.undo()
    assert run(Fake()) == ["a.1", "c", "d"]
    assert list(read_ensembles(out)) == list(SIZES)


def test_a_stop_lets_the_images_that_are_being_written_be_finished(run, tmp_path, two_at_a_time):
    with pytest.raises(KeyboardInterrupt):
        run(Fake(stop_before="c"))
    out = tmp_path / "out"
    assert {path.name for path in out.glob("*_prob.png")} == {"a.1_prob.png", "b_prob.png"}
    assert not [path for path in out.iterdir() if path.suffix in (".tmp", ".lock", ".csv")]
    assert run(Fake()) == ["c", "d"]


def test_what_is_done_is_done_again_only_where_something_differs(run, cases, tmp_path):
    run(Fake())
    assert run(Fake(batch_size=2)) == []
    assert json.loads((tmp_path / "out" / "run.json").read_text())["images_done_before"] == 4
    (tmp_path / "out" / "b_overlay.png").unlink()
    assert run(Fake()) == ["b"]
    assert run(Fake(), extras=Extras(maps=True)) == list(SIZES)
    Image.new("RGB", (50, 40)).save(tmp_path / "other.png")
    assert run(Fake(), [Case("a.1", (tmp_path / "other.png",)), *cases[1:]], Extras(maps=True)) == ["a.1"]


def test_images_of_the_same_settings_gather_in_one_folder(run, cases, tmp_path):
    assert run(Fake(), cases[:2]) == ["a.1", "b"]
    assert run(Fake(), cases[2:]) == ["c", "d"]
    assert sorted(read_ensembles(tmp_path / "out")) == list(SIZES)


@pytest.mark.parametrize(
    ("options", "weights", "said"),
    [({}, "w", "other weights"), ({"seed": 3}, "", "seed 0, not 3"), ({"eta": 0.5, "sampler": "ddim"}, "", "ddpm")],
)
def test_masks_of_another_model_or_options_are_not_mixed(run, cases, tmp_path, options, weights, said):
    run(Fake(), cases[:2])
    before = everything(tmp_path / "out")
    with pytest.raises(InputError, match=f"holds masks sampled with .*{said}.* by sampling with overwrite"):
        run(Fake(**options), cases[2:], weights=weights)
    assert everything(tmp_path / "out") == before
    assert run(Fake(**options), cases[2:], weights=weights, overwrite=True) == ["c", "d"]
    assert list(read_ensembles(tmp_path / "out")) == ["c", "d"]
    assert not list((tmp_path / "out").glob("b*"))


def test_two_samplings_do_not_share_a_folder(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    hold = "import sys; from pathlib import Path; from medsegdiff.base.files import exclusive\n"
    hold += "with exclusive(Path(sys.argv[1])):\n    print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another process works there"):
            run(Fake())
        other.stdin.close()
    assert list(out.iterdir()) == []
    assert run(Fake()) == list(SIZES)
