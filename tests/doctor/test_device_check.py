import numpy as np
import pytest

from medsegdiff.doctor import device_check
from medsegdiff.doctor.device_check import Check, Outcome, examine
from medsegdiff.runtime.backend import jt


@pytest.mark.parametrize("check", device_check.checks(), ids=lambda check: check.name)
def test_everything_is_right_here(check):
    outcome = examine(check)
    assert outcome.passed, outcome


def tf32(value):
    """`value` as tensor cores take it: ten bits of fraction, a rounding that gradients do not see."""
    bits = value.numpy().view(np.uint32)
    return value + (jt.array(((bits + 0x1000) & ~np.uint32(0x1FFF)).view(np.float32)) - value).stop_grad()


def product(ours):
    values = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32)
    return examine(Check("product", ours, np.matmul, (values[0], values[1])))


def test_rounded_factors_are_found_out():
    assert product(jt.matmul).passed
    outcome = product(lambda a, b: jt.matmul(tf32(a), tf32(b)))
    assert not outcome.passed
    assert outcome.value < 1e-2  # so little it takes


def test_a_wrong_gradient_is_found_out():
    outcome = product(lambda a, b: jt.matmul(a, b) + (a.sum() - a.stop_grad().sum()))
    assert outcome.value <= device_check.LIMIT < outcome.gradient


def test_an_operation_that_does_nothing_is_found_out():
    outcome = product(lambda a, b: a * 0)
    assert not outcome.passed


def test_what_is_not_a_number_does_not_pass():
    assert not Outcome("", float("nan"), 0.0).passed
    assert not Outcome("", 0.0, float("nan")).passed


def test_the_device_is_named():
    assert device_check.device() == ("GPU" if jt.flags.use_cuda else "CPU")
