import numpy as np

from medsegdiff.kernels.joint_normalisation import joint_batch_norm, joint_moments
from medsegdiff.kernels.operations import batch_norm
from medsegdiff.runtime.backend import jt


def test_joint_batch_norm_of_one_process_is_batch_norm():
    rng = np.random.default_rng(6)
    shapes = ((3, 4, 5, 2), (4,), (4,), (3, 4, 5, 2))
    x, weight, bias, pull = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    x = x + 3
    mean, variance = joint_moments(jt.array(x))
    assert str(mean.dtype) == str(variance.dtype) == "float64"
    np.testing.assert_allclose(mean.numpy(), x.astype(np.float64).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(variance.numpy(), x.astype(np.float64).var((0, 2, 3)), rtol=1e-7)
    results = []
    for norm in (lambda *given: batch_norm(*given)[0], lambda *given: joint_batch_norm(*given, mean, variance)):
        variables = [jt.array(a) for a in (x, weight, bias)]
        y = norm(*variables)
        assert str(y.dtype) == "float32"
        results.append([y.numpy(), *(g.numpy() for g in jt.grad((y * jt.array(pull)).sum(), variables))])
    for ours, theirs in zip(*results[::-1]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def test_a_mean_much_larger_than_the_deviation_costs_no_digits():
    x = np.float32(1e6 + 0.0625 * np.random.default_rng(7).integers(-1, 2, (2, 3, 33, 33)))
    mean, variance = joint_moments(jt.array(x))
    np.testing.assert_allclose(mean.numpy(), x.astype(np.float64).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(variance.numpy(), x.astype(np.float64).var((0, 2, 3)), rtol=1e-5)
