import math

import numpy as np

from medsegdiff.parity.cases import normal, parameter


def test_weights_are_rounded_once_whatever_numpy_makes_of_mixed_precision():
    name, shape = "block.conv.weight", (64, 27, 3, 3)
    root = math.sqrt(27 * 9)
    once = [np.float32(float(number) / root) for number in normal(name, shape).reshape(-1)]
    found = parameter(name, shape)
    assert found.dtype == np.float32
    assert found.shape == shape
    assert np.array_equal(found.reshape(-1), once)
    twice = normal(name, shape) / np.float32(root)
    assert not np.array_equal(found, twice)


def test_affine_weights_are_about_one_and_biases_about_zero():
    assert np.array_equal(parameter("norm.weight", (8,)), 1 + np.float32(0.1) * normal("norm.weight", (8,)))
    assert np.array_equal(parameter("norm.bias", (8,)), np.float32(0.1) * normal("norm.bias", (8,)))
