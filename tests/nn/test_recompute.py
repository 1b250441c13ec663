import numpy as np
import pytest

from medsegdiff.kernels import precision
from medsegdiff.nn.recompute import Part, set_recomputed
from medsegdiff.runtime.backend import jt


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
