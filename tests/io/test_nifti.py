"""NIfTI files that are damaged, or do not say clearly what they are."""

import gzip

import nibabel
import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.io.volumes import read_volume, slices_of

VALUES = np.arange(1, 7 * 6 * 5 + 1, dtype=np.int16).reshape(7, 6, 5)
TURNED = {"srow_x": (-1, 0, 0, 6), "sform_code": 1, "qform_code": 1}


def write(path, **fields):
    """A file whose header holds these fields, whatever they make of it."""
    nibabel.save(nibabel.Nifti1Image(VALUES, np.eye(4)), path)
    content = path.read_bytes()
    header = nibabel.Nifti1Header(content[:348])
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_whether_it_is_compressed_the_content_says(tmp_path, name, compressed):
    content = write(tmp_path / "b.nii").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if compressed else content)
    np.testing.assert_array_equal(read_volume(tmp_path / name).values, VALUES)


@pytest.mark.parametrize("damage", ["a voxel", "checksum", "cut off"])
def test_a_compressed_file_is_compared_with_its_checksum(tmp_path, damage):
    path = tmp_path / "a.nii.gz"
    whole = bytearray(gzip.compress(write(tmp_path / "a.nii").read_bytes(), 0))
    whole[-100 if damage == "a voxel" else -8] ^= 1
    path.write_bytes(whole[:-8] if damage == "cut off" else whole)
    with pytest.raises(InputError, match=r"a\.nii\.gz: damaged or no NIfTI file"):
        read_volume(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"scl_slope": 1, "scl_inter": np.inf},
        {"datatype": 0},
        {"dim": (3, 7, 6, 0, 1, 1, 1, 1)},
        {"dim": (9, 7, 6, 5, 1, 1, 1, 1)},
        {"srow_x": (0, 0, 0, 0), "sform_code": 1},
        {"srow_x": (np.nan, 0, 0, 0), "sform_code": 1},
        {"quatern_b": np.nan, "sform_code": 0, "qform_code": 1},
        {"quatern_b": 2, "sform_code": 0, "qform_code": 1},
    ],
)
def test_a_header_that_says_nothing_is_refused_in_one_line(tmp_path, fields, capfd):
    path = write(tmp_path / "a.nii", **fields)
    for read in (read_volume, slices_of):
        if read is read_volume or "scl_inter" not in fields:
            with pytest.raises(InputError) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"pixdim": (1, -1, 1, 1, 0, 0, 0, 0)},
            "its header was repaired while reading: pixdim[1,2,3] should be positive",
        ),
        ({"xyzt_units": 3}, "says that its axes are in microns; they are taken for millimetres"),
        (TURNED, "its sform and qform differ; the sform is used, other programs may use the qform"),
        ({**TURNED, "srow_x": (1, 0, 0, 0.2)}, ""),
        ({"quatern_b": np.nan, "sform_code": 1, "qform_code": 1}, ""),
        ({"scl_slope": np.nan, "scl_inter": np.nan}, ""),
    ],
)
def test_what_of_a_header_is_not_certain_is_said(tmp_path, fields, said, capfd):
    path = write(tmp_path / "a.nii", **fields)
    np.testing.assert_array_equal(read_volume(path).values, VALUES)
    assert capfd.readouterr().err == (f"note: {path}: {said}\n" if said else "")


def test_small_voxels_are_no_fault(tmp_path):
    nibabel.save(nibabel.Nifti1Image(VALUES, np.diag([1e-5, 1e-5, 1e-5, 1])), tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").geometry.spacing == pytest.approx((1e-5, 1e-5, 1e-5))
