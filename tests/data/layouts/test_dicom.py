import shutil

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import from_files
from medsegdiff.data.check import check
from medsegdiff.data.fingerprint import measure
from medsegdiff.data.layouts import choose, dicom
from medsegdiff.data.source import read_classes, read_source
from medsegdiff.io.dicom.segmentation import write_segmentation
from medsegdiff.io.volumes import read_volume, slices_of, to_slices, write_volume
from tests.dicom_series import SHAPE


@pytest.fixture
def labels():
    found = np.zeros(SHAPE, np.uint8)
    found[3:9, 2:7, 1:6], found[6:8, 4:6, 3:5] = 1, 2
    return found


@pytest.fixture
def patients(make_series, labels, tmp_path):
    """Two patients, of two series and one, each series with a SEG in another folder."""
    root = tmp_path / "root"
    for number, place in enumerate(("p1/first", "p1/second", "p2/third")):

        def change(_, slice_, patient=place[:2]):
            slice_.PatientID = patient

        folder, _, _ = make_series(f"s{number}", change=change, seed=number)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        folder.rename(root / place)
        (root / "segmentations").mkdir(exist_ok=True)
        write_segmentation(root / "segmentations" / f"{9 - number}.dcm", labels, read_volume(root / place).geometry)
    return root


def test_masks_are_found_by_what_they_refer_to(patients):
    assert choose(patients) == "dicom"
    cases = dicom.find(patients, "train")
    assert [(case.id, case.patient, case.mask.name) for case in cases] == [
        ("first", "p1", "9.dcm"),
        ("second", "p1", "8.dcm"),
        ("third", "p2", "7.dcm"),
    ]
    assert dicom.find(patients, "test") == []


def test_what_is_found_is_read_as_slices(patients, labels, tmp_path):
    cases = dicom.find(patients, "train")
    spec = dicom.spec(patients, lambda: measure(cases, False))
    assert spec.labels == {1: 1, 2: 2}
    volume = read_volume(patients / "p1/first")
    source = read_source(cases[0], spec)
    np.testing.assert_array_equal(source.values[..., 0], to_slices(volume.values, volume.geometry))
    np.testing.assert_array_equal(read_classes(cases[0], spec, 3, source), to_slices(labels, volume.geometry))
    assert slices_of(patients / "p1/first") == len(source.values)
    assert check(patients, progress=False).findings == []
    one = prepare(cases, 16, tmp_path / "cache", num_classes=3, spec=spec)
    assert len(one) == 3 * len(source.values)
    again = prepare(dicom.find(patients, "train"), 16, tmp_path / "cache", num_classes=3, spec=spec)
    assert one.fingerprint == again.fingerprint
    image = patients / "p1/first/0x.dcm"
    image.write_bytes(image.read_bytes()[:-2] + b"\1\1")
    assert prepare(cases, 16, tmp_path / "cache", num_classes=3, spec=spec).fingerprint != one.fingerprint


def test_masks_may_be_nifti_named_as_the_series(patients, labels):
    shutil.rmtree(patients / "segmentations")
    with pytest.raises(InputError, match=r"first: no DICOM SEG refers to this series, nor is there masks/first.nii.gz"):
        dicom.find(patients, "train")
    assert [case.mask for case in dicom.find(patients, "train", need_masks=False)] == [None] * 3
    (patients / "masks").mkdir()
    for case in dicom.find(patients, "train", need_masks=False):
        write_volume(patients / "masks" / f"{case.id}.nii.gz", labels, read_volume(case.image).geometry)
    cases = dicom.find(patients, "train")
    assert [case.mask.name for case in cases] == ["first.nii.gz", "second.nii.gz", "third.nii.gz"]
    assert check(patients, progress=False).findings == []


def test_a_test_set_of_its_own(patients):
    (patients / "test").mkdir()
    (patients / "p2").rename(patients / "test/p2")
    (patients / "segmentations/7.dcm").rename(patients / "test/7.dcm")
    assert [case.id for case in dicom.find(patients, "train")] == ["first", "second"]
    assert [case.id for case in dicom.find(patients, "test")] == ["third"]


def test_two_masks_of_a_series_are_refused(patients):
    shutil.copy(patients / "segmentations/9.dcm", patients / "p2/other.dcm")
    with pytest.raises(InputError, match="a second segmentation of the series"):
        dicom.find(patients, "train")


def test_two_series_in_a_folder_are_refused(patients):
    for path in (patients / "p1/first").iterdir():
        path.rename(patients / "p1/second" / f"b{path.name}")
    with pytest.raises(InputError, match=r"second: holds 2 series; keep each in a folder of its own"):
        dicom.find(patients, "train")


def test_a_mask_on_another_grid_is_found_by_the_check(patients, make_series, labels):
    """A SEG that says it belongs to this series, and lies elsewhere."""
    import pydicom

    other = read_volume(make_series("other", spacing=(0.7, 1.3, 3.5))[0]).geometry
    seg = pydicom.dcmread(patients / "segmentations/7.dcm")
    write_segmentation(patients / "segmentations/7.dcm", labels, other)
    elsewhere = pydicom.dcmread(patients / "segmentations/7.dcm")
    elsewhere.ReferencedSeriesSequence = seg.ReferencedSeriesSequence
    elsewhere.save_as(patients / "segmentations/7.dcm")
    found = check(patients, progress=False).findings
    assert [(finding.kind, finding.file.name) for finding in found] == [("unreadable", "7.dcm")]
    assert "lies on another grid than its image" in found[0].what


def test_series_to_segment_are_named_by_their_folders(patients):
    assert [case.image for case in from_files([patients / "p1/first"])] == [patients / "p1/first"]
    assert [case.id for case in from_files([patients / "p1"])] == ["first", "second"]
    single = patients / "p2/third/0x.dcm"
    assert read_volume(from_files([single])[0].image).values.shape == (*SHAPE[:2], 1)
