import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from medsegdiff.base.errors import InputError
from medsegdiff.io.dicom.segmentation import read_segmentation, write_segmentation
from medsegdiff.io.dicom.series import read_dicom
from tests.dicom_series import SHAPE, save
from tests.io.dicom.test_series import enhanced


@pytest.fixture
def labels():
    found = np.zeros(SHAPE, np.uint8)
    found[3:9, 2:7, 1:6] = 1
    found[6:8, 4:6, 3:5] = 2
    found[10, 11, 7] = 2
    return found


def test_what_is_written_is_read_again(make_series, labels, tmp_path):
    folder, _, _ = make_series()
    geometry = read_dicom(folder).geometry
    write_segmentation(tmp_path / "seg.dcm", labels, geometry, {1: "lesion", 2: "core"})
    np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", geometry), labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seg.dcm", "series"]


def test_highdicom_reads_it_and_finds_the_images(make_series, labels, tmp_path):
    folder, _, _ = make_series()
    images = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}
    write_segmentation(tmp_path / "seg.dcm", labels, read_dicom(folder).geometry, {1: "lesion", 2: "core"})
    found = highdicom.seg.segread(str(tmp_path / "seg.dcm"))
    assert [found.get_segment_description(number).segment_label for number in (1, 2)] == ["lesion", "core"]
    assert found.PatientID == "P7"
    assert found.FrameOfReferenceUID == "1.2.3.5"
    direction = np.cross(*np.array(next(iter(images.values())).ImageOrientationPatient, float).reshape(2, 3))
    uids = sorted(images, key=lambda uid: np.dot(np.array(images[uid].ImagePositionPatient, float), direction))
    pixels = found.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), labels)


def test_simpleitk_reads_its_frames(make_series, labels, tmp_path):
    write_segmentation(tmp_path / "seg.dcm", labels, read_dicom(make_series()[0]).geometry, {1: "lesion", 2: "core"})
    frames = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "seg.dcm")))  # it asks not where they lie
    np.testing.assert_array_equal(frames > 0, pydicom.dcmread(tmp_path / "seg.dcm").pixel_array)
    assert np.count_nonzero(frames) == np.count_nonzero(labels)


def test_frames_of_one_file_are_referred_to_in_their_order(make_series, labels, tmp_path):
    path, _, _ = enhanced(make_series, [3, 0, 8, 1, 7, 2, 6, 4, 5])
    image = pydicom.dcmread(path)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    save(image, path)
    geometry = read_dicom(path).geometry
    write_segmentation(tmp_path / "seg.dcm", labels, geometry)
    np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", geometry), labels)
    frames = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    referred = set()
    for frame in frames:
        number = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        own = image.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0].ImagePositionPatient
        assert frame.PlanePositionSequence[0].ImagePositionPatient == own
        referred.add(number)
    assert len(referred) == 6  # slices 1 to 5 and 7 have labels


@pytest.mark.parametrize("names", [None, {1: "lesion"}])
def test_a_mask_without_foreground(names, make_series, tmp_path):
    geometry = read_dicom(make_series()[0]).geometry
    write_segmentation(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), geometry, names)
    assert not read_segmentation(tmp_path / "seg.dcm", geometry).any()


def test_another_grid_is_refused(make_series, labels, tmp_path):
    geometry = read_dicom(make_series()[0]).geometry
    write_segmentation(tmp_path / "seg.dcm", labels, geometry)
    for name, spacing in (("wider", (0.8, 1.3, 2.5)), ("apart", (0.7, 1.3, 2.0))):
        other = read_dicom(make_series(name, spacing)[0]).geometry
        with pytest.raises(InputError, match="lies on another grid"):
            read_segmentation(tmp_path / "seg.dcm", other)


def test_overlapping_segments_are_said(make_series, labels, tmp_path, capsys):
    geometry = read_dicom(make_series()[0]).geometry
    write_segmentation(tmp_path / "seg.dcm", labels, geometry, {1: "lesion", 2: "core"})
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    groups = seg.PerFrameFunctionalGroupsSequence
    places = [
        (group.SegmentIdentificationSequence[0].ReferencedSegmentNumber, str(group.PlanePositionSequence[0]))
        for group in groups
    ]
    two, one = next((i, places.index((1, at))) for i, (n, at) in enumerate(places) if n == 2 and (1, at) in places)
    pixels = seg.pixel_array.copy()
    pixels[one] |= pixels[two]
    seg.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    save(seg, tmp_path / "both.dcm")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "both.dcm", geometry), labels)
    assert "its segments overlap" in capsys.readouterr().err


def test_an_image_is_no_segmentation(make_series):
    folder, _, _ = make_series()
    with pytest.raises(InputError, match="CT, where a segmentation was expected"):
        read_segmentation(folder / "0x.dcm", read_dicom(folder).geometry)


def test_images_whose_headers_lack_too_much_are_one_line(make_series, tmp_path):
    geometry = read_dicom(make_series(change=lambda _, slice_: delattr(slice_, "StudyInstanceUID"))[0]).geometry
    with pytest.raises(InputError, match=r"seg.dcm: no segmentation can refer to these images \(.*write NIfTI"):
        write_segmentation(tmp_path / "seg.dcm", np.ones(geometry.shape, np.uint8), geometry)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


@pytest.mark.parametrize("segment", [None, 0, 300])
def test_a_segment_without_a_number_that_a_mask_holds_is_refused(make_series, labels, tmp_path, segment):
    geometry = read_dicom(make_series()[0]).geometry
    write_segmentation(tmp_path / "seg.dcm", labels, geometry)
    changed = pydicom.dcmread(tmp_path / "seg.dcm")
    frame = changed.PerFrameFunctionalGroupsSequence[0]
    if segment is None:
        del frame.SegmentIdentificationSequence
    else:
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = segment
    changed.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match=r"seg\.dcm: a frame names no segment from 1 to 255"):
        read_segmentation(tmp_path / "seg.dcm", geometry)


def test_a_mask_without_foreground_is_written_in_silence(make_series, tmp_path, caplog):
    geometry = read_dicom(make_series()[0]).geometry
    write_segmentation(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), geometry)
    assert caplog.records == []
