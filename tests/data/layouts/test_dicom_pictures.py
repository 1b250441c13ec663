"""Single DICOM pictures, as of dermoscopy and X-rays, with masks that are pictures."""

import json
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.check import check
from medsegdiff.data.fingerprint import measure
from medsegdiff.data.layouts import choose, dicom
from medsegdiff.data.source import read_classes, read_source
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.inference.predict import predict
from medsegdiff.inference.segmenter import BatchSegmenter
from tests.dicom_series import OBLIQUE, header, save
from tests.fake_denoiser import Bright

SIZE = (40, 30)  # columns, rows


def dataset(root, colour, masks="masks", ending="_mask.png", together=False):
    """Five pictures without a place in the patient, bright inside their masks, each a series of its own or all one."""
    (root / "images").mkdir(parents=True)
    (root / masks).mkdir()
    drawn = {}
    for number in range(5):
        rows, columns = np.indices(SIZE[::-1])
        mask = np.hypot(rows - 14, columns - 12 - 3 * number) < 6 + number
        picture = header(number, [0, 0, 0], (1, 1), OBLIQUE, "1.2.3.9" if together else f"1.2.3.9.{number + 1}")
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            delattr(picture, name)
        picture.PatientID = f"P{number}"
        picture.Columns, picture.Rows = SIZE
        noise = np.random.default_rng(number).integers(0, 40, SIZE[::-1])
        if colour:
            del picture.RescaleSlope, picture.RescaleIntercept
            picture.Modality, picture.SamplesPerPixel, picture.PhotometricInterpretation = "XC", 3, "RGB"
            picture.PlanarConfiguration, picture.BitsAllocated, picture.BitsStored, picture.HighBit = 0, 8, 8, 7
            pixels = (np.stack([noise, noise + 10, noise], -1) + 200 * mask[..., None]).astype(np.uint8)
        else:
            picture.Modality, picture.RescaleIntercept = "CR", "0"
            pixels = (50 + noise + 3000 * mask).astype(np.uint16)
        picture.PixelData = pixels.tobytes()
        save(picture, root / f"images/{number}.dcm")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / masks / f"{number}{ending}")
        drawn[str(number)] = mask
    return drawn


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("colour", [False, True])
def test_each_picture_is_a_case_with_its_mask(tmp_path, colour, together):
    drawn = dataset(tmp_path, colour, together=together)
    assert choose(tmp_path) == "dicom"
    cases = dicom.find(tmp_path, "train")
    assert [(case.id, case.image.name, case.mask.name) for case in cases] == [
        (str(number), f"{number}.dcm", f"{number}_mask.png") for number in range(5)
    ]
    if not together:
        assert [case.patient for case in cases] == [f"P{number}" for number in range(5)]
    spec = dicom.spec(tmp_path, lambda: measure(cases, False))
    assert (spec.channels, spec.colour, dict(spec.labels)) == (3 if colour else 1, colour, {255: 1})
    assert spec.scaling == ("8-bit" if colour else "z-score")
    for case in cases:
        source = read_source(case, spec)
        np.testing.assert_array_equal(read_classes(case, spec, 2, source)[0], drawn[case.id])
        assert ((source.values[0, ..., -1] > 150) == drawn[case.id]).all()
    assert check(tmp_path, progress=False).findings == []
    prepared = prepare(cases, 32, tmp_path / "cache", progress=False, num_classes=2, spec=spec)
    assert len(prepared) == 5
    assert all(((prepared.image(i)[-1] > 0.55) == (prepared.mask(i)[0] > 0)).mean() > 0.9 for i in range(5))


@pytest.mark.parametrize("colour", [False, True])
def test_a_picture_is_segmented_and_scored_against_its_mask(tmp_path, colour, capsys):
    drawn = dataset(tmp_path / "data", colour, "labels", ".png")
    cases = dicom.find(tmp_path / "data", "train")
    spec = dicom.spec(tmp_path / "data", lambda: measure(cases, False))
    prepared = prepare(cases, 32, tmp_path / "cache", progress=False, num_classes=2, spec=spec)
    sampling = SamplingConfig(sampler="ddim", steps=1, members=1)
    segmenter = BatchSegmenter(Bright(32), DiffusionConfig(predict_xstart=True), sampling)
    predict(segmenter, cases, prepared, tmp_path / "out", "none")
    words = ["--pred-path", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    assert main(["evaluate", *words]) == 0
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    assert report["images"]["evaluated"] == 5
    assert report["metrics"]["dice"]["mean"] > 0.85
    if sys.version_info < (3, 10):  # highdicom 0.22, its last there, wants the size of pixels: a note says so
        return
    segmentation = pydicom.dcmread(tmp_path / "out/3.dcm")
    assert segmentation.Modality == "SEG"
    agreement = 2 * (segmentation.pixel_array.astype(bool) & drawn["3"]).sum()
    assert agreement / (segmentation.pixel_array.sum() + drawn["3"].sum()) > 0.85


def test_a_mask_of_another_size_and_one_that_is_a_photo_are_refused_in_one_line(tmp_path, capsys):
    dataset(tmp_path, colour=True)
    Image.fromarray(np.eye(40, 30, dtype=np.uint8) * 255).save(tmp_path / "masks/1_mask.png")
    rows, columns = np.indices(SIZE[::-1])
    Image.fromarray((rows * 6 + columns).astype(np.uint8)).save(tmp_path / "masks/2_mask.png")
    found = check(tmp_path, progress=False).findings
    assert [(finding.kind, finding.file.name) for finding in found] == [
        ("unreadable", "2_mask.png"),
        ("size", "1_mask.png"),
    ]
    assert "levels" in found[0].what
    assert "30 x 40 x 1 voxels, not 40 x 30 x 1" in found[1].what
