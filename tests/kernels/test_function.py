import numpy as np
import pytest

from medsegdiff.kernels.joint_normalisation import joint_batch_norm
from medsegdiff.kernels.operations import attention, conv2d, group_norm, linear
from medsegdiff.runtime.backend import jt


def drawn(*shape):
    return jt.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


OPERATIONS = {
    "linear": lambda x: linear(x, drawn(5, 6)),
    "conv2d": lambda x: conv2d(x, drawn(3, 4, 1, 1)),
    "group_norm": lambda x: group_norm(x, drawn(2, 4), drawn(2, 4), 2),
    "attention": lambda x: attention(x.reshape(2, 4, 36), drawn(2, 4, 36), drawn(2, 4, 36)),
    "joint_batch_norm": lambda x: joint_batch_norm(x, drawn(4), drawn(4), drawn(4).float64(), drawn(4).float64() ** 2),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_second_gradient_of_one_graph_is_refused_in_words(operation):
    x = drawn(2, 4, 6, 6)
    y = OPERATIONS[operation](x)
    jt.grad(y.sum(), [x])
    with pytest.raises(RuntimeError, match="can be taken once"):
        jt.grad((y * y).sum(), [x])
