"""Volumes: segmented slice by slice, written on their own grid, scored as a whole."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK

from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.data.spec import DataSpec
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.evaluation.evaluate import evaluate
from medsegdiff.inference.files import Extras
from medsegdiff.inference.predict import predict
from medsegdiff.inference.results import read_run
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.io.ensembles import read_ensembles
from tests.data.volumes import ball, write
from tests.fake_denoiser import Bright

DIFFUSION = DiffusionConfig(diffusion_steps=8, noise_schedule="cosine", predict_xstart=True)
SIZE = 32


@pytest.fixture
def cases(tmp_path):
    """Two oblique volumes of one patient, a bright ball in each, which has the label 4; the first slices are blank."""
    found = []
    for number in range(2):
        image, labels = ball(seed=number)
        image[..., :2], labels[..., :2] = 0, 0
        path, mask = tmp_path / f"data/{number}.nii.gz", tmp_path / f"data/{number}-seg.nii.gz"
        found.append(Case(str(number), (write(path, image),), write(mask, np.uint8(4) * (labels > 0)), "p"))
    return found


@pytest.fixture
def segment(cases, tmp_path):
    def segment(axis="axial", extras=None, **options):
        spec = DataSpec(1, "150..550", {4: 1}, False, axis)
        bare = [Case(case.id, case.channels) for case in cases]
        dataset = prepare(bare, SIZE, tmp_path / "cache", progress=False, spec=spec, skip_blank=axis == "axial")
        sampling = SamplingConfig(members=3, steps=2, **options)
        segmenter = BatchSegmenter(Bright(SIZE), DIFFUSION, sampling)
        out = tmp_path / f"out-{axis}"
        predict(segmenter, cases, dataset, out, "weights", extras or Extras(maps=True, members=True), kept=["0", "1"])
        return out

    return segment


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_masks_lie_on_the_organ_in_the_images_own_world(segment, cases, axis):
    out = segment(axis)
    for case in cases:
        image, found, truth = (nibabel.load(path) for path in (case.image, out / f"{case.id}.nii.gz", case.mask))
        np.testing.assert_array_equal(found.affine, image.affine)
        assert found.shape == image.shape
        for field in ("qform_code", "sform_code", "xyzt_units", "descrip"):
            np.testing.assert_array_equal(found.header[field], image.header[field])
        assert set(np.unique(found.dataobj)) == {0, 4}  # the dataset's own label
        predicted, true = (np.asanyarray(one.dataobj) > 0 for one in (found, truth))
        assert 2 * (predicted & true).sum() / (predicted.sum() + true.sum()) > 0.9
        # Another reader finds it at the same place in the patient.
        itk = {
            name: SimpleITK.ReadImage(str(path)) for name, path in (("a", case.image), ("b", out / f"{case.id}.nii.gz"))
        }
        for name in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
            assert getattr(itk["a"], name)() == getattr(itk["b"], name)()
        shape = SimpleITK.LabelShapeStatisticsImageFilter()
        shape.Execute(itk["b"])
        ours = shape.GetCentroid(4)
        shape.Execute(SimpleITK.ReadImage(str(case.mask)))
        np.testing.assert_allclose(ours, shape.GetCentroid(4), atol=0.5)


def test_every_map_is_a_volume_and_the_run_says_how_to_read_them(segment):
    out = segment()
    names = {path.name for path in out.glob("0*")}
    kinds = ["", "_prob", "_std", "_entropy", "_cal", *(f"_member{member}" for member in range(3))]
    assert names == {f"0{kind}.nii.gz" for kind in kinds} | {"0_overlay.png"}
    probability = np.asanyarray(nibabel.load(out / "0_prob.nii.gz").dataobj)
    mask = np.asanyarray(nibabel.load(out / "0.nii.gz").dataobj) > 0
    assert (mask == (probability > 0.5)).mean() > 0.999
    assert not mask[..., :2].any()  # blank slices
    run = read_run(out)
    assert (run.kept, run.labels, run.num_classes) == (("0", "1"), "4:1", 2)
    assert {row.members for row in read_ensembles(out).values()} == {3}
    assert all(0.5 < row.agreement <= 1 for row in read_ensembles(out).values())


def test_scores_are_of_whole_volumes_and_of_patients(segment, cases, tmp_path):
    out = segment()
    truth, patients = {case.id: case.mask for case in cases}, {case.id: case.patient for case in cases}
    report = evaluate(out, truth, out=tmp_path / "report", labels={4: 1}, patients=patients)
    for score, case in zip(report.scores, cases):
        found, true = (np.asanyarray(nibabel.load(path).dataobj) > 0 for path in (score.prediction, case.mask))
        assert score.metrics["dice"] == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))
        assert {"brier", "ged", "cal_dice", "member_dice"} <= score.metrics.keys()
        assert "published_dice" not in score.metrics
    assert report.patients["dice"].n == 1
    assert report.patients["dice"].mean == pytest.approx(report.summaries["dice"].mean)
    written = json.loads((tmp_path / "report/metrics.json").read_text())
    assert written["patients"]["dice"]["n"] == 1


def test_what_is_done_is_not_done_again_and_one_region_is_kept_on_request(segment, capsys):
    segment()
    segment()
    assert "2 of 2 images are done already" in capsys.readouterr().out
    out = segment("coronal", Extras(), postprocess=True)
    labels = SimpleITK.ReadImage(str(out / "0.nii.gz")) > 0
    filter = SimpleITK.ConnectedComponentImageFilter()
    filter.SetFullyConnected(True)
    filter.Execute(labels)
    assert filter.GetObjectCount() == 1


@pytest.mark.parametrize("damage", ["cut off", "channels"])
def test_a_ground_truth_that_cannot_be_read_costs_no_mask(segment, cases, damage, capsys):
    if damage == "channels":
        write(cases[0].mask, np.zeros((20, 24, 10, 2), np.uint8))
    else:
        cases[0].mask.write_bytes(cases[0].mask.read_bytes()[:200])
    out = segment()
    assert all((out / f"{case.id}{end}").is_file() for case in cases for end in (".nii.gz", "_overlay.png"))
    assert f"note: the overlay is without ground truth: {cases[0].mask}: " in capsys.readouterr().out


def test_the_overlay_shows_the_ground_truth_of_the_labels_alone(segment, cases):
    alone = segment()
    drawn = (alone / "0_overlay.png").read_bytes()
    values = np.asanyarray(nibabel.load(cases[0].mask).dataobj)
    write(cases[0].mask, np.where(values == 4, np.uint8(4), np.uint8(7)))  # which is no label: background
    shutil.rmtree(alone)
    assert (segment() / "0_overlay.png").read_bytes() == drawn
