"""Small NIfTI volumes, made for tests."""

import nibabel
import numpy as np

_TURN = np.linalg.qr(np.array([[0.9, -0.2, 0.1], [0.25, 1.1, -0.3], [-0.1, 0.35, 1.2]]))[0]
OBLIQUE = np.eye(4)
OBLIQUE[:3] = np.column_stack([_TURN * [-0.9, 1.25, 2.4], [-40, 30, 12]])
"""Turned by some degrees about every axis, of uneven spacing, the first two axes towards left and back."""


def write(path, values, affine=OBLIQUE, dtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine, dtype=dtype or values.dtype)
    image.header["descrip"] = b"made for a test"
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


def ball(shape=(20, 24, 10), channels=1, seed=0):
    """An image (X, Y, Z) or (X, Y, Z, C) of noise with a bright ball, and the ball's labels: a shell 1, a core 2."""
    rng = np.random.default_rng(seed)
    centre = (np.array(shape) - 1) / 2 + rng.uniform(-1, 1, 3)
    distance = np.sqrt((((np.moveaxis(np.indices(shape), 0, -1) - centre) / np.array(shape)) ** 2).sum(-1))
    labels = (distance < 0.35).astype(np.uint8) + (distance < 0.2)
    image = rng.normal(200, 20, (*shape, channels)) + 300 * (labels > 0)[..., None]
    return (image[..., 0] if channels == 1 else image).astype(np.float32), labels
