import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.parity import cases, replay, report, training
from medsegdiff.parity.figures import write_curve

FOLDER = Path(__file__).parent / "cases"
ROOT = Path(__file__).resolve().parents[2]
ISIC = ROOT.parent / "shared" / "data" / "isic2016" / "Train"
FILES = sorted(FOLDER.glob("*.npz"))
KIND = {file: cases.load(file).kind for file in FILES}


def of(*kinds):
    return [file for file in FILES if KIND[file] in kinds]


def check(rows):
    failed = [f"{row.quantity}: {row.error} > {row.tolerance} {row.note}" for row in rows if not row.passed]
    assert rows
    assert failed == []


@pytest.fixture(scope="module", autouse=True)
def parameters_drawn_once():
    """The parameters of a published network are 100 million numbers; cases share them."""
    with pytest.MonkeyPatch.context() as patch:
        drawn = functools.cache(cases.parameter)
        patch.setattr(replay, "parameter", lambda name, shape: drawn(name, tuple(shape)))
        yield


@pytest.mark.parametrize("file", of("schedule", "fusion-and-metrics"), ids=str)
def test_schedules_fusion_and_metrics_equal_the_original(file):
    case = cases.load(file)
    check(replay.KINDS[case.kind](case))


@pytest.mark.parity
@pytest.mark.parametrize("file", of("forward", "sample"), ids=lambda f: f.stem)
def test_the_network_and_the_samplers_equal_the_original(file):
    case = cases.load(file)
    check(replay.KINDS[case.kind](case))


@pytest.mark.parity
@pytest.mark.parametrize("file", of("train"), ids=lambda f: f.stem)
def test_losses_gradients_and_updates_equal_the_original(file):
    check(training.train(cases.load(file)))


@pytest.mark.parity
@pytest.mark.parametrize("steps", [3, pytest.param(10, marks=pytest.mark.extended)])
def test_the_first_steps_on_real_images_equal_the_original(steps):
    if not ISIC.is_dir():
        pytest.skip(f"the real images are not here ({ISIC.relative_to(ROOT.parent)})")
    check(training.curve(cases.load(FOLDER / "curve-isic-64.npz"), ISIC, steps).rows)


def test_every_stored_case_is_of_a_kind_that_is_replayed():
    assert set(KIND.values()) == {*replay.KINDS, "train", "curve"}


def changed(tmp_path, source, **arrays):
    with np.load(FOLDER / source) as stored:
        content = {name: stored[name] for name in stored.files}
    path = tmp_path / source
    np.savez(path, **{**content, **arrays})
    return path


def test_a_number_over_its_tolerance_fails_the_command(tmp_path, capsys):
    with np.load(FOLDER / "schedules.npz") as stored:
        betas = stored["linear-100:betas"] * (1 + 1e-9)
    path = changed(tmp_path, "schedules.npz", **{"linear-100:betas": betas})
    assert main(["parity", str(FOLDER / "schedules.npz")]) == 0
    assert main(["parity", str(path)]) == 1
    assert capsys.readouterr().out.count("OVER") == 1


def test_a_curve_without_the_images_is_said_and_is_no_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["parity", str(FOLDER / "schedules.npz"), str(FOLDER / "curve-isic-64.npz")]) == 0
    out = capsys.readouterr().out
    assert "not compared  needs the ISIC 2016 training images: --isic-dir" in out
    assert "1 not made" in out


@pytest.mark.parametrize("name", ["schedules.csv", "schedules.png"])
def test_what_parity_did_not_write_stays(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main(["parity", str(FOLDER / "schedules.npz"), "--out-dir", str(tmp_path)]) == 2
    assert f"{name}: not written by parity" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_a_curve_is_written_as_numbers_and_as_a_plot(tmp_path):
    arrays = {name: np.float32([1, 2]) for name in training.CURVES}
    curve = training.Curve(SimpleNamespace(name="c", arrays=arrays), dict(arrays), [])
    for _ in range(2):  # its own it may replace
        write_curve(curve, tmp_path)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 3
    assert (tmp_path / "c.png").stat().st_size > 0
    (tmp_path / "c.csv").write_text("mine")
    with pytest.raises(InputError, match=r"c\.csv: not written by parity"):
        write_curve(curve, tmp_path)


def test_an_unknown_kind_or_sampler_fails_and_is_listed(tmp_path, capsys):
    odd = changed(tmp_path, "fusion-and-metrics.npz", meta=np.array('{"kind": "report"}'))
    sampler = changed(tmp_path, "sample-ddim-10.npz", meta=np.array('{"kind": "sample", "sampler": "heun"}'))
    assert main(["parity", str(odd), str(sampler)]) == 1
    out = capsys.readouterr().out
    assert "kind report" in out
    assert "sampler heun" in out
    assert out.count("not supported") == 2


def test_a_damaged_or_absent_case_is_named(tmp_path):
    path = tmp_path / "case.npz"
    path.write_bytes((FOLDER / "schedules.npz").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"case.npz: damaged"):
        cases.load(path)
    with pytest.raises(InputError, match="no such parity case"):
        cases.find([tmp_path / "absent"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no parity case"):
        cases.find([empty])


def test_relative_errors_need_an_exact_zero_where_the_scale_is_zero():
    assert report.relative("c", "q", np.zeros(2), np.zeros(2), 1e-3).passed
    assert not report.relative("c", "q", np.float64([0, 1e-30]), np.zeros(2), 1e-3).passed
    assert not report.relative("c", "q", np.float64([np.nan]), np.ones(1), 1e-3).passed
    assert not report.Row("c", "q").passed
