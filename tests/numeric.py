"""Plain NumPy computations in float64 that the tests compare with."""

import numpy as np


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """Convolution of (N, C, H, W) by (O, C, K, K), one kernel position after another."""
    padded, k = (
        np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding))),
        weight.shape[2],
    )
    height, width = ((size - k) // stride + 1 for size in padded.shape[2:])
    y = np.zeros((len(x), len(weight), height, width))
    for i in range(k):
        for j in range(k):
            window = padded[:, :, i : i + stride * height : stride, j : j + stride * width : stride]
            y += np.einsum("nchw,oc->nohw", window, np.asarray(weight[:, :, i, j], np.float64))
    return y if bias is None else y + np.asarray(bias, np.float64).reshape(1, -1, 1, 1)


def conv2d_gradients(x, weight, dy, stride=1, padding=0):
    """Gradients of sum(conv2d(x, weight, bias) * dy) with respect to x, weight and bias."""
    padded, k = (
        np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding))),
        weight.shape[2],
    )
    dx, dw = np.zeros_like(padded), np.zeros(weight.shape)
    for i in range(k):
        for j in range(k):
            at = (..., slice(i, i + stride * dy.shape[2], stride), slice(j, j + stride * dy.shape[3], stride))
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dy, padded[at])
            dx[at] += np.einsum("nohw,oc->nchw", dy, np.asarray(weight[:, :, i, j], np.float64))
    height, width = x.shape[2:]
    return dx[:, :, padding : padding + height, padding : padding + width], dw, dy.sum(axis=(0, 2, 3))


def sigmoid(x):
    with np.errstate(over="ignore"):  # of the exponential, whose reciprocal is the zero that is meant
        return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def silu(x):
    return x * sigmoid(x)


def group_norm(x, weight, bias, groups, with_silu=False):
    """Group normalisation of (N, C, H, W) with `weight` and `bias` (N, C)."""
    n, c, h, w = x.shape
    grouped = np.asarray(x, np.float64).reshape(n, groups, -1)
    normed = (grouped - grouped.mean(axis=2, keepdims=True)) / np.sqrt(grouped.var(axis=2, keepdims=True) + 1e-5)
    z = normed.reshape(n, c, h, w) * weight[:, :, None, None] + bias[:, :, None, None]
    return silu(z) if with_silu else z


def group_norm_gradient(x, weight, bias, groups, with_silu, dy):
    """The gradient of sum(group_norm(...) * dy) with respect to `x`, by the formula."""
    n, c, h, w = x.shape
    grouped = np.asarray(x, np.float64).reshape(n, groups, -1)
    rstd = 1 / np.sqrt(grouped.var(axis=2, keepdims=True) + 1e-5)
    normed = (grouped - grouped.mean(axis=2, keepdims=True)) * rstd
    z = normed.reshape(n, c, h, w) * weight[:, :, None, None] + bias[:, :, None, None]
    slope = sigmoid(z) * (1 + z * sigmoid(-z)) if with_silu else 1
    pull = (slope * dy * np.asarray(weight, np.float64)[:, :, None, None]).reshape(grouped.shape)
    along = (pull * normed).mean(axis=2, keepdims=True)
    return (rstd * (pull - pull.mean(axis=2, keepdims=True) - normed * along)).reshape(x.shape)


def attention(q, k, v):
    """Softmax attention of (B, D, T)."""
    scores = np.einsum("bdt,bds->bts", np.asarray(q, np.float64), np.asarray(k, np.float64)) / np.sqrt(q.shape[1])
    scores = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.einsum("bts,bds->bdt", scores / scores.sum(axis=2, keepdims=True), np.asarray(v, np.float64))


def gradient(function, x, step=1e-5):
    """Central differences of a scalar function of one float64 array."""
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        result[index] = (function(x + shift) - function(x - shift)) / (2 * step)
    return result
