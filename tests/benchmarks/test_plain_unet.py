import csv
import json

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from benchmarks import plain_unet  # noqa: E402
from medsegdiff.app.cli import main  # noqa: E402
from medsegdiff.data.phantom import write_isic  # noqa: E402


def options(tmp_path, **more):
    flat = {"image_size": 32, "batch_size": 4, "augment": True, "mask_resize": "nearest", "num_channels": 32, **more}
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(flat))
    return ["--config", str(tmp_path / "options.yaml"), "--data-dir", str(tmp_path / "data")]


def test_it_learns_what_a_lesion_is_and_is_scored_as_any_other_network(tmp_path, capfd):
    write_isic(tmp_path / "data", train=12, test=3, size=64)
    words = [*options(tmp_path), "--out-dir", str(tmp_path / "out"), "--steps", "50", "--width", "8"]
    plain_unet.main(words)
    assert "50 steps in " in capfd.readouterr().out
    with (tmp_path / "out/log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["loss"]) < 1.2
    assert (
        main(["evaluate", "--pred-path", str(tmp_path / "out/predictions"), "--data-dir", str(tmp_path / "data")]) == 0
    )
    report = json.loads((tmp_path / "out/predictions/metrics.json").read_text())
    assert report["images"]["evaluated"] == 3
    assert report["metrics"]["dice"]["mean"] > 0.5
    plain_unet.main(words)  # again: the same network
    again = torch.load(tmp_path / "out/network.pt")
    assert all(torch.isfinite(value).all() for value in again.values())


def test_as_many_steps_as_the_time_is_enough_for(tmp_path, capfd):
    write_isic(tmp_path / "data", train=4, test=1, size=64)
    plain_unet.main([*options(tmp_path), "--out-dir", str(tmp_path / "out"), "--minutes", "0.05", "--width", "8"])
    steps, _, _, _, minutes, *_ = capfd.readouterr().out.split("\n")[-2].split()
    assert int(steps) > 1
    assert 0.02 < float(minutes) < 0.2


def test_the_loss_is_least_where_the_network_is_right():
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :2], masks[0, 1, 2:, :2] = 1, 1
    labels = torch.cat([1 - masks.sum(1, keepdim=True), masks], 1)
    right, wrong = (plain_unet.loss_of(20 * one, masks) for one in (labels, labels.roll(1, 1)))
    assert right < 1e-3
    assert wrong > 10
    np.testing.assert_allclose(
        plain_unet.loss_of(torch.zeros(1, 3, 4, 4), masks),
        np.log(3) + 1 - 0.5 * ((2 * 8 / 3 + 1) / (16 / 3 + 8 + 1) + (2 * 4 / 3 + 1) / (16 / 3 + 4 + 1)),
        rtol=1e-5,
    )
