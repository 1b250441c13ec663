"""DICOM series made here: oblique, of any spacing, in files whose names and numbers say nothing of their order."""

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

# Rows and columns of a slice turned about all axes.
OBLIQUE = np.linalg.qr(np.array([[0.9, 0.3, -0.2], [-0.25, 0.95, 0.15], [0.3, -0.1, 0.9]]))[0].T
if np.linalg.det(OBLIQUE) < 0:
    OBLIQUE[2] *= -1
SHAPE = (17, 13, 9)  # X, Y, Z


def header(number, place, spacing, directions, series):
    """A CT slice without pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.PatientID, slice_.PatientName = "P7", "Phantom^Seven"
    slice_.PatientBirthDate = slice_.PatientSex = slice_.AccessionNumber = slice_.StudyID = ""
    slice_.ReferringPhysicianName = ""
    slice_.StudyDate, slice_.StudyTime = "20260101", "120000"
    slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = "1.2.3.4", "1.2.3.5"
    slice_.SeriesInstanceUID, slice_.SeriesNumber, slice_.SeriesDescription = series, 3, "head"
    slice_.Modality, slice_.InstanceNumber = "CT", 100 - 7 * number % 50  # no order
    slice_.PositionReferenceIndicator = slice_.Manufacturer = ""
    slice_.ImagePositionPatient = [f"{value:.10g}"[:16] for value in place]
    slice_.ImageOrientationPatient = [f"{value:.10g}"[:16] for value in directions[:2].ravel()]
    slice_.PixelSpacing = [f"{spacing[1]}", f"{spacing[0]}"]  # rows, then columns
    slice_.SliceThickness = "99"  # says nothing of the distance
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
    slice_.RescaleSlope, slice_.RescaleIntercept = "1", "-1024"
    return slice_


def maker(home):
    """A function that writes a series into `home`; its folder, the stored values (X, Y, Z) and the affine to LPS."""

    def make(
        name="series", spacing=(0.7, 1.3, 2.5), at=None, shear=(0.0, 0.0), change=None, seed=0, directions=OBLIQUE
    ):
        folder = home / name
        folder.mkdir()
        stored = np.random.default_rng(seed).integers(0, 4096, SHAPE, np.uint16)
        step = directions[2] * spacing[2] + directions[0] * shear[0] + directions[1] * shear[1]
        origin, series = np.array([-31.5, 12.25, 8.0]), generate_uid()
        steps = range(SHAPE[2]) if at is None else at
        for number, (along, pixels) in enumerate(zip(steps, stored.transpose(2, 1, 0))):
            slice_ = header(number, origin + along * step, spacing, directions, series)
            slice_.Columns, slice_.Rows = SHAPE[:2]
            slice_.PixelData = np.ascontiguousarray(pixels).tobytes()
            if change:
                change(number, slice_)
            save(slice_, folder / f"{(number * 5) % 9}x.dcm")  # no order
        affine = np.eye(4)
        affine[:3] = np.column_stack([directions[0] * spacing[0], directions[1] * spacing[1], step, origin])
        return folder, stored, affine

    return make


def save(dataset, path):
    """Write a dataset as a DICOM file, with either version of pydicom."""
    if int(pydicom.__version__.split(".")[0]) < 3:
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        dataset.save_as(path, write_like_original=False)
    else:
        dataset.save_as(path, enforce_file_format=True)
