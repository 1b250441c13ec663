from typing import get_args

import nibabel
import numpy as np
import pytest
import SimpleITK

from medsegdiff.base.errors import InputError
from medsegdiff.io.volumes import (
    Axis,
    Geometry,
    from_slices,
    read_label_volume,
    read_volume,
    slices_of,
    stem,
    to_slices,
    write_volume,
)
from tests.data.volumes import OBLIQUE, write

AXES = get_args(Axis)
VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("order", ["RAS", "LPS", "ASR", "ILP"])
def test_slices_lie_as_a_viewer_shows_them_whatever_the_files_order(axis, order):
    ras = nibabel.Nifti1Image(VALUES, np.eye(4))
    other = ras.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.orientations.io_orientation(np.eye(4)), nibabel.orientations.axcodes2ornt(order)
        )
    )
    geometry = Geometry(other.shape, other.affine)
    assert "".join(nibabel.orientations.aff2axcodes(geometry.affine)) == order
    values = np.asanyarray(other.dataobj)
    slices = to_slices(values, geometry, axis)
    # Rows go down, columns to the patient's left, or back of sagittal ones.
    expected = {
        "axial": VALUES[::-1, ::-1].transpose(2, 1, 0),
        "coronal": VALUES[::-1, ::-1, ::-1].transpose(1, 2, 0),
        "sagittal": VALUES[::-1, ::-1, ::-1].transpose(0, 2, 1),
    }[axis]
    np.testing.assert_array_equal(slices, expected)
    np.testing.assert_array_equal(from_slices(slices, geometry, axis), values)
    channels = np.stack([slices, -slices], axis=1)
    np.testing.assert_array_equal(from_slices(channels, geometry, axis, channels=True), np.stack([values, -values]))


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_an_oblique_volume_comes_back_with_the_same_geometry(tmp_path, kind):
    path = write(tmp_path / "a.nii.gz", VALUES.astype(kind))
    values, geometry = read_volume(path)
    labels = (values > 50).astype(np.uint8)
    write_volume(tmp_path / "b.nii.gz", labels, geometry)
    old, new = nibabel.load(path), nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(new.affine, old.affine)
    np.testing.assert_array_equal(np.asanyarray(new.dataobj), labels)
    for field in ("qform_code", "sform_code", "xyzt_units", "descrip", "pixdim", "srow_x", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(new.header[field], old.header[field])
    assert new.get_data_dtype() == np.uint8
    itk_old, itk_new = (SimpleITK.ReadImage(str(file)) for file in (path, tmp_path / "b.nii.gz"))
    for name in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        assert getattr(itk_new, name)() == getattr(itk_old, name)()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk_new).T, labels)


def test_fractions_take_16_bits_and_are_read_by_others(tmp_path):
    _, geometry = read_volume(write(tmp_path / "a.nii.gz", VALUES))
    fractions = np.linspace(0, 1, VALUES.size, dtype=np.float32).reshape(VALUES.shape)
    write_volume(tmp_path / "b.nii.gz", fractions, geometry)
    assert nibabel.load(tmp_path / "b.nii.gz").get_data_dtype() == np.uint16
    for found in (
        read_volume(tmp_path / "b.nii.gz").values,
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "b.nii.gz"))).T,
    ):
        np.testing.assert_allclose(found, fractions, atol=1 / 65535)


def test_geometries_are_told_apart():
    one = Geometry((4, 5, 6), OBLIQUE)
    assert one.differs(Geometry((4, 5, 6), OBLIQUE + 1e-6)) == ""
    moved = OBLIQUE.copy()
    moved[2, 3] += 0.3
    assert one.differs(Geometry((4, 5, 6), moved), voxels=0.01) == "its corners lie up to 0.3 mm off"
    assert one.differs(Geometry((4, 5, 6), moved)) == ""
    assert one.differs(Geometry((4, 6, 5), OBLIQUE)) == "4 x 6 x 5 voxels, not 4 x 5 x 6"
    np.testing.assert_allclose(one.spacing, np.linalg.norm(OBLIQUE[:3, :3], axis=0))


def test_slices_are_counted_from_the_header(tmp_path):
    path = write(tmp_path / "a.nii.gz", VALUES)
    assert [slices_of(path, axis) for axis in AXES] == [6, 5, 4]
    assert slices_of(tmp_path / "a.png") == 1
    assert (stem(path), stem(tmp_path / "b.c.NII"), stem(tmp_path / "d.e.png")) == ("a", "b.c", "d.e")


@pytest.mark.parametrize("content", [b"", b"no volume", b"\x1f\x8b" + bytes(40)])
def test_what_cannot_be_read_is_one_line(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_volume_that_is_cut_off_or_has_no_three_axes_is_named(tmp_path):
    path = write(tmp_path / "a.nii", VALUES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or no NIfTI file"):
        read_volume(path)
    write(tmp_path / "b.nii", np.zeros((2, 2, 2, 2, 2), np.uint8))
    with pytest.raises(InputError, match="2 x 2 x 2 x 2 x 2 voxels"):
        read_volume(tmp_path / "b.nii")
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "c.nii")


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (7, 6, 5, 1), (7, 6, 5, 1, 1)])
def test_the_axes_are_the_inputs(shape, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.int16), np.diag([1, 2, 3, 1])), tmp_path / "a.nii")
    values, geometry = read_volume(tmp_path / "a.nii")
    marked = np.arange(values.size, dtype=np.uint8).reshape(values.shape)
    write_volume(tmp_path / "b.nii", marked, geometry)
    written = nibabel.load(tmp_path / "b.nii")
    assert written.shape == shape
    np.testing.assert_array_equal(np.asanyarray(written.dataobj).ravel(), marked.ravel())
    assert written.header.get_zooms() == nibabel.load(tmp_path / "a.nii").header.get_zooms()


def test_a_mask_has_labels_and_no_channels(tmp_path):
    write(tmp_path / "a.nii", VALUES.astype(np.float32))
    assert read_label_volume(tmp_path / "a.nii").values.dtype == np.int32
    write(tmp_path / "b.nii", np.stack([VALUES] * 2, axis=-1))
    with pytest.raises(InputError, match=r"b\.nii: has channels, where a mask holds labels"):
        read_label_volume(tmp_path / "b.nii")
    write(tmp_path / "c.nii", VALUES.astype(np.float32) / 2)
    with pytest.raises(InputError, match=r"c\.nii: holds values that are not whole numbers"):
        read_label_volume(tmp_path / "c.nii")


@pytest.mark.parametrize("order", ["LPS", "RAS", "SAL", "PIR"])
def test_a_mask_is_brought_to_the_order_of_its_images_axes(tmp_path, order):
    image = write(tmp_path / "image.nii", VALUES)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(OBLIQUE), nibabel.orientations.axcodes2ornt(order)
    )
    mask = nibabel.load(image).as_reoriented(turn)
    nibabel.save(mask, tmp_path / "mask.nii")
    values, geometry = read_label_volume(tmp_path / "mask.nii", image)
    np.testing.assert_array_equal(values, VALUES)
    assert not read_volume(image).geometry.differs(geometry)
    moved = mask.affine.copy()
    moved[:3, 3] += 3
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(mask.dataobj), moved), tmp_path / "moved.nii")
    assert read_volume(image).geometry.differs(read_label_volume(tmp_path / "moved.nii", image).geometry)
