"""A denoiser of plain NumPy, which finds what is bright."""

import numpy as np

from medsegdiff.diffusion.process import Output


class Bright:
    """It predicts the clean mask: the image's brightness, swayed a little by the noisy mask, so that members differ."""

    backend = "NumPy"

    def __init__(self, size=16, classes=1):
        self.mask_shape = (classes, size, size)
        self.encoded = []

    def encode(self, images):
        self.encoded.append(images.copy())
        return images.mean(axis=1, keepdims=True)

    def gather(self, parts, rows):
        return np.concatenate(list(parts))[list(rows)]

    def denoise(self, mask_t, t, condition):
        brightness = np.repeat(condition, self.mask_shape[0], axis=1) / self.mask_shape[0]
        return Output(np.clip(brightness + 0.05 * np.tanh(mask_t), 0, 1), None, brightness)
