import numpy as np
import pytest

from medsegdiff.kernels import precision
from medsegdiff.nn.layers import Conv2d, GroupNorm
from medsegdiff.nn.recompute import Part, set_recomputed
from medsegdiff.runtime.backend import jt, nn


class Product(Part):
    """A matrix product that follows the precision, and tells it."""

    def __init__(self):
        self.weight = jt.array(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32))
        self.seen = []

    def execute(self, x):
        self.seen.append(precision.current())
        return precision.narrowed(jt.matmul, x, self.weight)


def gradients(inside, recomputed):
    part = Product()
    set_recomputed(part, recomputed)
    x = jt.array(np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32))
    with precision.using(inside):
        y = part(x)
    found = jt.grad((y * y).sum(), [x, part.weight], retain_graph=False)  # outside, where float32 is in force
    jt.sync(found)
    return part.seen, [value.numpy() for value in found]


@pytest.mark.parametrize("inside", ["fp32", "fp16"])
def test_a_part_is_computed_again_in_the_precision_of_the_first_time(inside, monkeypatch):
    monkeypatch.setattr(precision, "unavailable", lambda name: "")
    seen, again = gradients(inside, recomputed=True)
    assert seen == [inside, inside]
    for ours, kept, full in zip(again, gradients(inside, recomputed=False)[1], gradients("fp32", recomputed=False)[1]):
        np.testing.assert_allclose(ours, kept, rtol=1e-5, atol=1e-6)
        assert (ours != full).any() == (inside == "fp16")


class Block(Part):
    """Five maps are computed inside."""

    def __init__(self):
        self.norms = nn.ModuleList(*(GroupNorm(32) for _ in range(2)))
        self.convs = nn.ModuleList(*(Conv2d(32, 32, 3, init="he") for _ in range(2)))

    def execute(self, x):
        for norm, conv in zip(self.norms, self.convs):
            x = conv(norm(x, silu=True))
        return x * jt.sigmoid(x)


def most_memory():
    """The most memory that Jittor had so far while its profile was on, in maps of 2 MiB."""
    return int(jt.core.get_max_memory_info().partition("[")[0]) / 2**21


def held():
    """The memory that earlier tests hold on to."""
    jt.flags.profile_memory_enable = 1
    jt.zeros(1).sync()
    found = most_memory()
    jt.flags.profile_memory_enable = 0
    return found


def peak_maps(recomputed, count=6):
    """The most memory that a forward and backward pass through some blocks takes, in maps of 2 MiB."""
    blocks = [Block() for _ in range(count)]
    for block in blocks:
        set_recomputed(block, recomputed)
        for layer in block.convs:
            layer.reset(np.random.default_rng(0))
    x = jt.array(np.random.default_rng(1).standard_normal((1, 32, 128, 128)).astype(np.float32))
    jt.sync_all()
    jt.flags.profile_memory_enable = 1
    try:
        y = x
        for block in blocks:
            y = block(y)
        found = jt.grad((y * y).sum(), [p for block in blocks for p in block.parameters()], retain_graph=False)
        del y
        jt.sync(found)
        return most_memory()
    finally:
        jt.flags.profile_memory_enable = 0


def test_recomputed_parts_keep_their_inputs_alone_and_let_go_of_them():
    """Kept, each block holds five maps; recomputed, one, and that of the block at work with its gradients."""
    others, recomputed, kept = held(), peak_maps(True), peak_maps(False)
    assert kept - others > 5 * 6
    assert recomputed - others < 6 + 10
