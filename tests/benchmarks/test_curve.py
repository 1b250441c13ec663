import json
import re

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks import curve
from medsegdiff.engine.parity.cases import load


def test_it_trains_a_small_network_alike_in_both_precisions_and_layouts(given, tmp_path, monkeypatch, capsys):
    meta = load(curve.CASE).meta
    small = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,1", "diffusion_steps": 30}
    meta = {**meta, "config": {**meta["config"], **small}, "batch": 2, "images": 4}
    ones = {name: np.ones(2) for name in ("loss_diff", "loss_cal", "grad_norm")}
    np.savez(tmp_path / "curve-small.npz", meta=json.dumps(meta), **ones)
    monkeypatch.setattr(curve, "CASE", tmp_path / "curve-small.npz")
    numbers = []
    laid_out = ["--channels-last", "--threads", str(torch.get_num_threads())]
    for precision, options in (("float32", []), ("float64", []), ("float32", laid_out)):
        curve.main(["--isic-dir", given[3], "--precision", precision, "--steps", "2", *options])
        said = capsys.readouterr().out
        assert said.startswith(f"{precision}: relative difference")
        numbers.append([float(number) for number in re.findall(r"[+-]\d\.\de[+-]\d\d", said)])
    assert len(numbers[0]) == 2 * 3
    assert np.isfinite(numbers).all()
    # Of the first step, in two digits; the optimiser's first step enlarges rounding.
    for other in numbers[1:]:
        np.testing.assert_allclose(numbers[0][:3], other[:3], rtol=0.1, atol=0.02)
