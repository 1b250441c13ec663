import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import from_files
from medsegdiff.io.dicom.geometry import LPS_TO_RAS
from medsegdiff.io.dicom.series import find_series, read_dicom
from medsegdiff.io.pictures import decode
from medsegdiff.io.volumes import is_series
from tests.dicom_series import SHAPE


def shipped(name):
    """A file that comes with pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this version of pydicom comes without {name}")
    return Path(path)


def test_an_oblique_series_is_where_it_says(make_series):
    folder, stored, affine = make_series()
    values, geometry = read_dicom(folder)
    assert values.dtype == np.int32
    np.testing.assert_array_equal(values, stored.astype(int) - 1024)
    np.testing.assert_allclose(geometry.affine, LPS_TO_RAS @ affine, atol=1e-6)
    assert geometry.shape == SHAPE
    np.testing.assert_allclose(geometry.spacing, (0.7, 1.3, 2.5), atol=1e-6)


def test_simpleitk_sees_the_same(make_series):
    folder, _, _ = make_series()
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs, ours = reader.Execute(), read_dicom(folder)
    np.testing.assert_array_equal(ours.values, SimpleITK.GetArrayFromImage(theirs).T)
    for index in ((0, 0, 0), (15, 0, 0), (3, 12, 0), (5, 7, 8)):
        point = LPS_TO_RAS @ [*theirs.TransformIndexToPhysicalPoint(index), 1]
        np.testing.assert_allclose(ours.geometry.affine @ [*index, 1], point, atol=1e-3)


def test_a_tilted_gantry_is_a_sheared_affine(make_series):
    folder, _, affine = make_series(shear=(0.0, 0.6))
    np.testing.assert_allclose(read_dicom(folder).geometry.affine, LPS_TO_RAS @ affine, atol=1e-6)


def test_positions_that_are_rounded_are_even(make_series):
    def change(_, slice_):
        slice_.ImagePositionPatient = [f"{float(value):.2f}" for value in slice_.ImagePositionPatient]

    assert read_dicom(make_series(change=change)[0]).geometry.spacing[2] == pytest.approx(2.5, abs=0.01)


def test_each_slice_has_its_own_slope(make_series):
    def change(number, slice_):  # as of PET
        slice_.RescaleSlope, slice_.RescaleIntercept = f"{0.5 + number}", "2"

    folder, stored, _ = make_series(change=change)
    values = read_dicom(folder).values
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, stored * (0.5 + np.arange(9)) + 2, rtol=1e-6)


@pytest.mark.parametrize("modality", ["DX", "CT"])
def test_low_is_dark_where_files_have_it_white_and_units_are_what_they_are(make_series, modality):
    def change(_, slice_):
        slice_.PhotometricInterpretation, slice_.Modality = "MONOCHROME1", modality

    folder, stored, _ = make_series(change=change)
    expected = (4095 - stored.astype(int) if modality == "DX" else stored.astype(int)) - 1024
    np.testing.assert_array_equal(read_dicom(folder).values, expected)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ([0, 1, 2, 3, 5, 6, 7, 8, 9], "1 slices are missing between them"),
        ([0, 1, 2, 3, 7, 8, 9, 10, 11], "3 slices are missing between them"),
        ([0, 1, 2, 3, 4.4, 5, 6, 7, 8], r"are 3.5 mm apart, others 2.5 mm"),
        ([0, 1, 2, 3, 3, 4, 5, 6, 7], "lie at the same place"),
    ],
)
def test_slices_that_are_no_even_stack_are_named(at, said, make_series):
    folder, _, _ = make_series(at=at)
    with pytest.raises(InputError, match=rf"{folder}: (6x.dcm and 2x|2x.dcm and 6x).dcm.*{said}"):
        read_dicom(folder)


def test_a_slice_beside_the_others_is_named(make_series):
    def change(number, slice_):
        if number == 4:
            shifted = np.array(slice_.ImagePositionPatient, float) + 2 * np.array(slice_.ImageOrientationPatient)[:3]
            slice_.ImagePositionPatient = [f"{value:.8g}" for value in shifted]

    with pytest.raises(InputError, match=r"2x.dcm: lies 1.* mm beside the line"):
        read_dicom(make_series(change=change)[0])


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("ImageOrientationPatient", ["1", "0", "0", "0", "1", "0"], "another direction or spacing"),
        ("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"], "not at right angles"),
        ("PixelSpacing", ["1", "1"], "another direction or spacing"),
        ("PhotometricInterpretation", "MONOCHROME1", "other sizes or pixels"),
        ("ImagePositionPatient", None, "does not say where its pixels lie"),
        ("PixelSpacing", ["0", "0"], "does not say where its pixels lie"),
    ],
)
def test_a_slice_unlike_the_others_is_named(keyword, value, said, make_series):
    def change(number, slice_):
        if number == 4:
            setattr(slice_, keyword, value)

    with pytest.raises(InputError, match=rf"2x.dcm: .*{said}"):
        read_dicom(make_series(change=change)[0])


def test_several_series_in_a_folder_are_named(make_series):
    other = generate_uid()

    def change(number, slice_):
        if number < 2:
            slice_.SeriesInstanceUID, slice_.SeriesDescription = other, "scout"

    folder, _, _ = make_series(change=change)
    with pytest.raises(InputError, match=r"holds 2 series \(2 files of CT scout; 7 files of CT head\)"):
        read_dicom(folder)
    assert sorted(len(series.files) for series in find_series(folder).series.values()) == [2, 7]
    assert {series.patient for series in find_series(folder).series.values()} == {"P7"}


def test_what_is_no_image_is_passed_over(make_series):
    folder, stored, _ = make_series()
    (folder / "notes.txt").write_text("none of ours")
    (folder / "DICOMDIR").write_bytes(shipped("DICOMDIR").read_bytes())
    (folder / "report.dcm").write_bytes(shipped("reportsi.dcm").read_bytes())
    assert read_dicom(folder).values.shape == stored.shape
    (folder.parent / "none").mkdir()
    with pytest.raises(InputError, match="holds no DICOM image"):
        read_dicom(folder.parent / "none")


def enhanced(make_series, order):
    """The same slices as one file of several frames, in `order`."""
    folder, stored, affine = make_series()
    slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    slices = sorted(slices, key=lambda one: float(np.dot(one.ImagePositionPatient, affine[:3, 2])))
    whole = slices[0]
    shared, frames = pydicom.Dataset(), []
    shared.PixelMeasuresSequence = [pydicom.Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = whole.PixelSpacing
    shared.PlaneOrientationSequence = [pydicom.Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = whole.ImageOrientationPatient
    shared.PixelValueTransformationSequence = [pydicom.Dataset()]
    shared.PixelValueTransformationSequence[0].RescaleSlope = "2"
    shared.PixelValueTransformationSequence[0].RescaleIntercept = "0"
    for number in order:
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = [pydicom.Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = slices[number].ImagePositionPatient
        frames.append(frame)
    pixels = b"".join(slices[number].PixelData for number in order)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(whole, keyword)
    whole.NumberOfFrames, whole.PixelData = len(order), pixels
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], frames
    path = folder.parent / "enhanced.dcm"
    whole.save_as(path)
    return path, stored, affine


def test_a_file_of_several_frames_is_put_in_order(make_series):
    path, stored, affine = enhanced(make_series, [3, 0, 8, 1, 7, 2, 6, 4, 5])
    values, geometry = read_dicom(path)
    np.testing.assert_array_equal(values, 2 * stored.astype(int))
    np.testing.assert_allclose(geometry.affine, LPS_TO_RAS @ affine, atol=1e-6)
    assert geometry.header.order == (1, 3, 5, 0, 7, 8, 6, 4, 2)


def test_a_film_is_refused():
    with pytest.raises(InputError, match="30 frames that do not say where they lie, as of a film"):
        read_dicom(shipped("examples_ybr_color.dcm"))


@pytest.mark.parametrize("name", ["examples_palette.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm"])
def test_colours_are_those_that_simpleitk_reads(name):
    values, geometry = read_dicom(shipped(name))
    assert values.dtype == np.uint8
    assert values.shape == (*geometry.shape, 3)
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(shipped(name))))
    if name == "examples_palette.dcm":  # SimpleITK gives 16 bits
        theirs = theirs >> 8 if theirs.dtype == np.uint16 else theirs
    difference = np.abs(values[:, :, 0].swapaxes(0, 1).astype(int) - np.squeeze(theirs)[..., :3])
    assert difference.max() <= 6
    assert np.ptp(values) > 200


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "CT_small.dcm"])
def test_files_that_come_with_pydicom(name):
    values, geometry = read_dicom(shipped(name))
    theirs = SimpleITK.ReadImage(str(shipped(name)))
    np.testing.assert_array_equal(values, SimpleITK.GetArrayFromImage(theirs).T)
    origin = LPS_TO_RAS @ [*theirs.GetOrigin(), 1]
    np.testing.assert_allclose(geometry.affine[:, 3], origin, atol=1e-3)
    assert values.shape[2] == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MR_truncated.dcm", "cannot be decoded"),
        ("rtplan.dcm", "without an image"),
        ("reportsi.dcm", "without an image"),
        ("liver_1frame.dcm", "SEG, where an image was expected"),
        ("SC_rgb_rle_16bit.dcm", "colours of 16 bits"),
        ("no_meta_group_length.dcm", "without an image|damaged"),
        ("SC_rgb_jpeg_gdcm.dcm", r"JPEG Lossless.*install python-gdcm, or export it uncompressed"),
    ],
)
def test_what_cannot_be_read_is_one_line(name, said):
    with pytest.raises(InputError, match=said) as caught:
        read_dicom(shipped(name))
    assert "\n" not in str(caught.value)


def test_damaged_files_are_one_line(make_series, tmp_path):
    folder, _, _ = make_series()
    content = (folder / "0x.dcm").read_bytes()
    path = tmp_path / "damaged.dcm"
    random = np.random.default_rng(0)
    for round in range(150):
        bad = bytearray(content[: random.integers(200, len(content))] if round % 3 == 0 else content)
        for place in random.integers(128, min(len(bad), 1800), 6):
            bad[place] = random.integers(256)
        path.write_bytes(bad)
        try:
            read_dicom(path)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("other", ["0.txt", "0.png", "00.nii.gz", "0"])
def test_a_series_is_one_whatever_lies_before_it(make_series, other):
    folder, _, _ = make_series()
    (folder / other).write_bytes(b"no DICOM")
    assert is_series(folder)
    assert [case.id for case in from_files([folder])] == ["series"]
    assert read_dicom(folder).values.shape == SHAPE


def test_pictures_and_volumes_are_no_series(tmp_path):
    for name in ("0.png", "1.nii.gz", "2.txt", "3"):
        (tmp_path / name).write_bytes(b"" if name == "3" else b"no DICOM")
    assert not is_series(tmp_path)


def test_a_file_without_the_suffix_says_what_to_do(make_series):
    folder, _, _ = make_series()
    path = next(folder.iterdir()).rename(folder.parent / "IM0001")
    with pytest.raises(InputError, match="IM0001: a DICOM file without the suffix"):
        decode(path)


@pytest.mark.parametrize("has_spacing", [True, False])
def test_a_picture_without_the_size_of_its_pixels_says_so(make_series, capsys, has_spacing):
    def change(_, slice_):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", *(() if has_spacing else ("PixelSpacing",))):
            delattr(slice_, keyword)

    path = next(make_series(change=change)[0].iterdir())
    assert read_dicom(path).geometry.spacing[:2] == pytest.approx((0.7, 1.3) if has_spacing else (1, 1))
    said = f"note: {path}: does not give its pixel size; distances assume 1 mm\n"
    assert capsys.readouterr().err == ("" if has_spacing else said)
