import json
import re

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks import curve
from benchmarks.torch_network import TorchMedSegDiff
from medsegdiff.parity.cases import load

QUANTITIES = ("loss_diff", "vb", "loss_cal", "grad_norm")


@pytest.fixture
def small_curve(given, tmp_path, monkeypatch, capsys):
    """Replays two steps of a small curve; all its stored numbers are 1."""
    meta = load(curve.CASE).meta
    small = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,1", "diffusion_steps": 30}
    meta = {**meta, "config": {**meta["config"], **small}, "batch": 2, "images": 4}
    ones = {name: np.ones(2) for name in QUANTITIES}
    np.savez(tmp_path / "curve-small.npz", meta=json.dumps(meta), **ones)
    monkeypatch.setattr(curve, "CASE", tmp_path / "curve-small.npz")

    def replay(*options):
        curve.main(["--isic-dir", given[3], "--steps", "2", *options])
        return capsys.readouterr().out

    return replay


def test_it_trains_alike_in_both_precisions_and_layouts(small_curve):
    numbers = []
    for precision, *options in (("float32",), ("float64",), ("float32", "--channels-last")):
        said = small_curve("--precision", precision, *options)
        assert said.startswith(f"{precision}: relative difference")
        numbers.append([float(number) for number in re.findall(r"[+-]\d\.\de[+-]\d\d", said)])
    first = len(QUANTITIES)
    assert len(numbers[0]) == 2 * first
    assert np.isfinite(numbers).all()
    # Of the first step, in two digits; the optimiser's first step enlarges rounding.
    for other in numbers[1:]:
        np.testing.assert_allclose(numbers[0][:first], other[:first], rtol=0.1, atol=0.02)


def test_threads_and_layout_are_as_asked(small_curve, monkeypatch):
    threads, layouts = [], []

    class Watched(TorchMedSegDiff):
        def forward(self, image, *rest):
            layouts.append(image.is_contiguous(memory_format=torch.channels_last))
            return super().forward(image, *rest)

    monkeypatch.setattr(curve, "TorchMedSegDiff", Watched)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    small_curve()
    small_curve("--threads", "3", "--channels-last")
    assert threads == [3]
    assert layouts == [False, False, True, True]
